"""Compiled sampling against uncompiled on a CPU: `python -m evaluation.proofs.parity.compiled` (minutes).

Prompts of different lengths, a small policy, all algorithms that sample, each with and without gradient checkpointing
and LoRA with dropout. Expected in every row: one graph for the whole run, at most one hook on the embedding, and
samples, logged numbers and weights that equal those without a compiler bit for bit.
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from torch._dynamo.utils import counters
from transformers import AutoTokenizer

import rlhf_trl_ext
from rlhf_trl_ext.models.tiny import build_tiny

ALGORITHMS = {
    "grpo": ("GRPO", {"beta": 0.1}),
    "rloo": ("RLOO", {"beta": 0.1}),
    "ppo": ("PPO", {"beta": 0.05}),
    "grpo_offpolicy": ("OffPolicyGRPO", {"beta": 0.1, "replay_ratio": 1.0}),
    "grpo_vi": ("GRPOVI", {"beta": 0.1}),
}
SETTINGS = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "per_device_train_batch_size": 8,
    "steps_per_generation": 1,  # a batch a step
    "num_generations": 4,
    "num_iterations": 1,
    "max_completion_length": 6,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
}
CLOCKS = ("runtime", "per_second", "step_time", "flos")


class Sampled(NamedTuple):
    """What a run left: sampled token ids by batch, its log without times, weights, compiled graphs, embedding hooks."""

    batches: list
    log: list[dict]
    weights: dict[str, torch.Tensor]
    graphs: int
    hooks: int


def distinct_characters(completions, **kwargs) -> list[float]:
    """A reward that differs between the completions of an untrained model."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def build_policy(folder: Path) -> str:
    """Write a policy with a width of 32; returns its folder."""
    build_tiny(folder, hidden_size=32, layers=2, heads=2, feed_forward_size=64)
    return str(folder)


def train(policy: str, folder: Path, name: str, way: str, checkpointing: bool, lora: bool, batches: int) -> Sampled:
    """`batches` batches of one algorithm with `compiled_generation=way`, one step each."""
    torch._dynamo.reset()
    counters.clear()
    prefix, own = ALGORITHMS[name]
    settings = {**SETTINGS, **own, "max_steps": batches, "gradient_checkpointing": checkpointing}
    args = getattr(rlhf_trl_ext, f"{prefix}Config")(str(folder), compiled_generation=way, **settings)
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": "lamp " * (1 + i % 7)}]} for i in range(28)])
    extra = {"train_dataset": data, "processing_class": AutoTokenizer.from_pretrained(policy)}
    if lora:
        extra["peft_config"] = LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = getattr(rlhf_trl_ext, f"{prefix}Trainer")(policy, distinct_characters, args, **extra)
    sample, sampled = trainer._generate_single_turn, []

    def recorded(*arguments, **options):
        result = sample(*arguments, **options)
        sampled.append(result[0] if isinstance(result, tuple) else result)  # RLOO's returns no log-probs
        return result

    trainer._generate_single_turn = recorded
    trainer.train()
    log = [{k: v for k, v in row.items() if not any(c in k for c in CLOCKS)} for row in trainer.state.log_history]
    weights = {key: value.detach().clone() for key, value in trainer.model.named_parameters()}
    embedding = trainer.accelerator.unwrap_model(trainer.model).get_input_embeddings()
    return Sampled(sampled, log, weights, counters["stats"]["unique_graphs"], len(embedding._forward_hooks))


def compare(policy: str, folder: Path, name: str, checkpointing: bool, lora: bool, batches: int) -> dict:
    """Graphs, hooks and batches of the compiled run, and whether samples, log and weights equal the uncompiled ones."""
    plain, compiled = (train(policy, folder / way, name, way, checkpointing, lora, batches) for way in ("off", "on"))
    return {
        "batches": len(compiled.batches),
        "graphs": compiled.graphs,
        "hooks": compiled.hooks,
        "samples": compiled.batches == plain.batches,
        "log": compiled.log == plain.log,
        "weights": all(torch.equal(value, plain.weights[key]) for key, value in compiled.weights.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("algorithm       checkpointing  LoRA   batches  graphs  hooks  samples  log      weights", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        policy = build_policy(Path(folder, "policy"))
        for name, checkpointing, lora in itertools.product(options.only, (False, True), (False, True)):
            row = compare(
                policy, Path(folder, f"{name}-{checkpointing}-{lora}"), name, checkpointing, lora, options.batches
            )
            words = ["equal" if row[key] else "differ" for key in ("samples", "log", "weights")]
            failed += row["graphs"] != 1 or row["hooks"] > 1 or "differ" in words
            given = ["yes" if asked else "no" for asked in (checkpointing, lora)]
            print(
                f"{name:<15} {given[0]:<14} {given[1]:<6} {row['batches']:<8} {row['graphs']:<7} {row['hooks']:<6} "
                f"{words[0]:<8} {words[1]:<8} {words[2]}",
                flush=True,
            )
    raise SystemExit(f"{failed} rows are not as expected" if failed else 0)


if __name__ == "__main__":
    main()
