"""Runs of PPO or, with `value_iteration`, GRPO-VI: any number of processes sees the same prompts and completions.

Usage: `worker.py <policy> <reward> <settings by folder, as JSON>`. For every run, one after the other, writes
`<folder>/log.json` (world size, logged metrics) and the model to `<folder>/out`.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer

from rlhf_trl_ext.trainers.grpo_vi import GRPOVIConfig, GRPOVITrainer
from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

LENGTHS = (3, 8, 2, 7, 1, 6, 2)  # by prompt, so that processes have unequally many tokens


def roll_out(prompts, trainer):
    """Pseudo-random completions, every second one without an end token."""
    tokenizer = trainer.processing_class
    rows = []
    for row, prompt in enumerate(prompts):
        place = int(prompt[0]["content"].split()[-1])
        seed = sum(map(ord, prompt[0]["content"])) * 7 + row % 2
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(10, 200, (LENGTHS[(place + row % 2) % 7],), generator=generator).tolist()
        rows.append([*ids[:-1], tokenizer.eos_token_id] if row % 2 else ids)
    prompt_ids = [tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in prompts]
    return {"prompt_ids": prompt_ids, "completion_ids": rows, "logprobs": [[0.0] * len(ids) for ids in rows]}


def score(completion_ids, **kwargs):
    return [sum(ids) / len(ids) / 50 for ids in completion_ids]


def main(policy: str, reward: str, runs: str) -> None:
    for folder, settings in json.loads(runs).items():
        run(policy, reward, folder, settings)


def run(policy: str, reward: str, folder: str, settings: dict) -> None:
    torch.manual_seed(0)  # adapters start at random
    resume, adapters = settings.pop("resume", None), settings.pop("lora", False)
    trainer_class, args_class = PPOTrainer, PPOConfig
    if settings.pop("value_iteration", False):
        trainer_class, args_class = GRPOVITrainer, GRPOVIConfig
        settings = {name: value for name, value in settings.items() if not name.startswith("score_")}
    args = args_class(output_dir=folder, **{"critic_path": reward, **settings})
    words = [f"lamp {'desk ' * (i % 5)}{i}" for i in range(24)]
    prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in words])
    tokenizer = AutoTokenizer.from_pretrained(policy)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapters else None
    extra = {"processing_class": tokenizer, "rollout_func": roll_out, "peft_config": lora}
    trainer = trainer_class(policy, score, args, train_dataset=prompts, **extra)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(f"{folder}/out")
    if trainer.accelerator.is_main_process:
        record = {"world_size": trainer.accelerator.num_processes, "log": trainer.state.log_history}
        Path(folder, "log.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
