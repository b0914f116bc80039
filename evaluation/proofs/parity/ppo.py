"""This project's PPO against TRL 1.12's from the same weights and the same batch: `make ppo-parity`.

Expected: advantages, returns and weights after one update (4 epochs of SGD) agree to 1e-6, for k1 and for k3.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

WORDS = 14
TOKENS = 8
ROWS = 16
TOLERANCE = 1e-6
ARGUMENTS = {"learning_rate": 0.05, "kl_coef": 0.3, "missing_eos_penalty": 1.0, "temperature": 0.7, "vf_coef": 0.1}


def build(folder: Path) -> list[list[int]]:
    """Write four small models with one tokenizer of 16 tokens, so that some completions end; returns prompts."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

    words = ["<pad>", "<end>", *(f"w{i}" for i in range(WORDS))]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), pad_token="<pad>", eos_token="<end>")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    for seed, name in enumerate(("policy", "reference", "value", "reward")):
        torch.manual_seed(seed)
        config = LlamaConfig(**shape, **ids, initializer_range=0.08, num_labels=1)
        kind = LlamaForCausalLM if name in ("policy", "reference") else LlamaForSequenceClassification
        model = kind(config)
        if hasattr(model, "lm_head"):
            never_pad(model)
        if name == "reward":
            model.score.weight.data.mul_(4.0)  # scores of about 2, so that whitening does not magnify rounding errors
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return [[2 + (i * j) % WORDS for j in range(1, 3 + i % 4)] for i in range(ROWS)]


@torch.no_grad()
def never_pad(model) -> None:
    """Make the padding token practically impossible: both trainers take a sampled one for the end of a completion."""
    model.model.embed_tokens.weight[:, 0] = 2.0  # so that the first hidden coordinate is positive everywhere
    model.lm_head.weight[0] = 0.0
    model.lm_head.weight[0, 0] = -20.0


def ours(folder: Path, theirs: dict, estimator: str, placement: str) -> dict:
    """The same update by this project's trainer: advantages, returns, and the weights after it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

    class Recorded(PPOTrainer):
        def _generate_and_score_completions(self, inputs):
            self.batch = super()._generate_and_score_completions(inputs)
            return self.batch

    prompts = [row[row != 0].tolist() for row in theirs["queries"]]
    completions = [row[row != 0].tolist() for row in theirs["responses"]]
    nothing = [[0.0] * len(ids) for ids in completions]
    arguments = {**ARGUMENTS, "kl_estimator": estimator, "num_iterations": 4, "score_placement": placement}
    arguments["loss_normalization"] = "micro_batch"
    arguments["temperature"] += 1e-7  # as TRL 1.12 does
    args = PPOConfig(
        output_dir=str(folder / "ours"),
        critic_path=str(folder / "value"),
        max_steps=4,
        per_device_train_batch_size=ROWS,
        steps_per_generation=1,
        max_completion_length=TOKENS,
        max_grad_norm=0.0,
        optim="sgd",
        lr_scheduler_type="constant",
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        **arguments,
    )
    trainer = Recorded(
        str(folder / "policy"),
        lambda completions, **kwargs: theirs["scores"].tolist(),
        args,
        train_dataset=Dataset.from_dict({"prompt": ["w0"] * ROWS}),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        rollout_func=lambda *_: {"prompt_ids": prompts, "completion_ids": completions, "logprobs": nothing},
    )
    reference = AutoModelForCausalLM.from_pretrained(folder / "reference")
    trainer.ref_model.load_state_dict(reference.state_dict())
    trainer.train()
    critic = {f"critic.{name}" for name in trainer.critic.state_dict()}
    weights = {name: value for name, value in trainer.model.state_dict().items() if name not in critic}
    return {**trainer.batch, "policy": weights, "value": trainer.critic.state_dict()}


def difference(ours: Tensor, theirs: Tensor, mask: Tensor) -> float:
    """Largest absolute difference where the mask is true."""
    return ((ours - theirs) * mask).abs().max().item()


def compare(reference_python: str, estimator: str, placement: str = "trl_phantom") -> dict[str, float]:
    """Largest differences of advantages, returns and weights; largest step of a weight; share of rows that ended early.

    reference_python: the interpreter of an environment with trl==1.12.0.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = {**ARGUMENTS, "kl_estimator": estimator, "num_ppo_epochs": 4, "response_length": TOKENS}
        settings = {"prompts": build(folder), "arguments": arguments}
        script = Path(__file__).with_name("trl112.py")
        command = [reference_python, str(script), str(folder), json.dumps(settings)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        theirs = torch.load(folder / "trl112.pt")
        before = {name: load(folder / name) for name in ("policy", "value")}
        mine = ours(folder, theirs, estimator, placement)
    real, counted = ~theirs["padding_mask"], ~theirs["padding_mask_p1"]
    weights = [(part, name) for part in ("policy", "value") for name in before[part]]
    return {
        "advantages": difference(mine["advantages"], theirs["whitened"], real),
        "returns": difference(mine["returns"], theirs["returns"], counted if placement != "last" else real),
        "weights": max((mine[part][name] - theirs[part][name]).abs().max().item() for part, name in weights),
        "largest step": max((theirs[part][name] - before[part][name]).abs().max().item() for part, name in weights),
        "ended": real.sum(dim=1).lt(TOKENS).float().mean().item(),
    }


def load(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", default=".venv-trl112/bin/python", help="interpreter with trl==1.12.0")
    reference = parser.parse_args().reference
    worst = 0.0
    for estimator in ("k1", "k3"):
        differences = compare(reference, estimator)
        print(estimator, ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
        worst = max(worst, differences["advantages"], differences["returns"], differences["weights"])
    differences = compare(reference, "k1", "last")
    print(
        "k1, score at the last token (the default):", ", ".join(f"{n} {value:.1e}" for n, value in differences.items())
    )
    if worst > TOLERANCE:
        raise SystemExit(f"differs from TRL 1.12 by {worst:.1e}, more than {TOLERANCE:.0e}.")


if __name__ == "__main__":
    main()
