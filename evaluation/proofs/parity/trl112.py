"""One update of TRL 1.12's PPOTrainer, recorded. Runs in .venv-trl112: `python trl112.py <folder> <settings as JSON>`.

Reads the models in `<folder>/{policy,value,reward}`; writes `<folder>/trl112.pt`: the sampled batch, scores, advantages
and returns, and the weights after the update.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

KEPT = ("queries", "responses", "logprobs", "values", "advantages", "returns", "padding_mask", "padding_mask_p1")


def main(folder: Path, settings: dict) -> None:
    """Train for one update and write what happened. settings: prompts (token ids) and arguments of PPOConfig."""
    prompts, arguments = settings["prompts"], settings["arguments"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    args = PPOConfig(
        output_dir=str(folder / "trl112"),
        total_episodes=len(prompts),
        per_device_train_batch_size=len(prompts),
        local_rollout_forward_batch_size=len(prompts),
        num_mini_batches=1,
        num_sample_generations=0,
        stop_token="eos",
        optim="sgd",
        lr_scheduler_type="constant",
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        **arguments,
    )
    models = {
        name: AutoModelForSequenceClassification.from_pretrained(folder / name, num_labels=1)
        for name in ("value", "reward")
    }
    trainer = PPOTrainer(
        args,
        tokenizer,
        AutoModelForCausalLM.from_pretrained(folder / "policy"),
        AutoModelForCausalLM.from_pretrained(folder / "reference"),
        models["reward"],
        Dataset.from_dict({"input_ids": prompts}),
        models["value"],
        eval_dataset=Dataset.from_dict({"input_ids": prompts[:2]}),
    )
    recorded = record(trainer)
    trainer.train()
    recorded["policy"] = trainer.policy_model.state_dict()
    recorded["value"] = trainer.value_model.state_dict()
    torch.save(recorded, folder / "trl112.pt")


def record(trainer: PPOTrainer) -> dict:
    """Fill a dictionary from the local variables of `PPOTrainer.train` where it whitens its advantages."""
    recorded, whiten, get_reward = {}, ppo_trainer.masked_whiten, ppo_trainer.get_reward

    def whitened(values, mask, *args):
        local = sys._getframe(1).f_locals
        recorded.update({name: local[name].clone() for name in KEPT})
        recorded["whitened"] = torch.masked_fill(whiten(values, mask, *args), local["padding_mask"], 0)
        return whiten(values, mask, *args)

    def rewarded(model, *args):
        result = get_reward(model, *args)
        if model is trainer.reward_model:
            recorded["scores"] = result[1].clone()
        return result

    ppo_trainer.masked_whiten, ppo_trainer.get_reward = whitened, rewarded
    return recorded


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
