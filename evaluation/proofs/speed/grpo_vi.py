"""Cost of GRPO-VI beside GRPO: `python -m evaluation.proofs.speed.grpo_vi`, step times as ratios, and memory.

Time: model, batch and lengths of the demo, a reward computed by code; runs of a few steps take turns in one process,
and the median over rounds of (processor time) / (that of GRPO's run in the same round) is reported, after one round
that does not count. Memory: a process for each, the peak of resident memory above that of the process before it loads a
model, beside PPO's; float32, policy and reference of 34 M parameters, batches of 4.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from evaluation.proofs.speed.ppo_memory import SETTINGS, lora, resident
from evaluation.proofs.speed.processes import measure

HEAD = {"vi_value_model": "head"}
ONE = {"critic_shares_base": True}
# name -> algorithm, its arguments
TIMED = {"grpo": ("grpo", {}), "separate critic": ("vi", {}), "head": ("vi", HEAD)}
TIMED |= {
    "whole buffer": ("vi", {"vi_sweep_batches": None}),
    "whole buffer, head": ("vi", {"vi_sweep_batches": None, **HEAD}),
}
LIVING = {"grpo": ("grpo", {}), "ppo": ("ppo", {}), "separate critic": ("vi", {}), "head": ("vi", HEAD)}
LIVING |= {"grpo, LoRA": ("grpo", {}), "head, LoRA": ("vi", HEAD), "critic on the policy's base, LoRA": ("vi", ONE)}


def letters(completions, **kwargs) -> list[float]:
    """A reward that costs nothing and differs between completions."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def trainer_of(algorithm: str, policy: Path, folder: Path, dataset, **settings):
    """A trainer of `policy`; settings: arguments, and `peft_config`."""
    from transformers import AutoTokenizer

    from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer
    from rlhf_trl_ext.trainers.grpo_vi import GRPOVIConfig, GRPOVITrainer
    from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

    adapter = settings.pop("peft_config", None)
    classes = {"grpo": (GRPOTrainer, GRPOConfig), "ppo": (PPOTrainer, PPOConfig), "vi": (GRPOVITrainer, GRPOVIConfig)}
    trainer_class, args_class = classes[algorithm]
    arguments = {"train_dataset": dataset, "processing_class": AutoTokenizer.from_pretrained(policy)}
    return trainer_class(
        str(policy), letters, args_class(output_dir=str(folder), **settings), **arguments, peft_config=adapter
    )


def times(folder: Path, steps: int, rounds: int) -> None:
    from rlhf_trl_ext.data.embedded import Embedded
    from rlhf_trl_ext.models.tiny import build_tiny

    torch.set_num_threads(1)
    build_tiny(folder / "policy")
    prompts = Embedded(seed=0, prompts=400).load("prompts")
    demo = {"per_device_train_batch_size": 64, "max_completion_length": 28, "beta": 0.3, "learning_rate": 2e-4}
    demo = {**SETTINGS, **demo, "num_iterations": 1, "max_steps": steps, "logging_strategy": "no"}
    taken = {name: [] for name in TIMED}
    for _ in range(rounds + 1):
        for name, (algorithm, settings) in TIMED.items():
            trainer = trainer_of(algorithm, folder / "policy", folder / "out", prompts, **demo, **settings)
            begin = time.process_time()
            trainer.train()
            taken[name].append(time.process_time() - begin)
    for name, seconds in taken.items():
        ratios = [own / grpo for own, grpo in zip(seconds[1:], taken["grpo"][1:], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        print(
            f"{name:<34} {1000 * statistics.median(seconds[1:]) / steps:6.0f} ms a step, times GRPO: {spread}",
            flush=True,
        )


def memory(name: str, folder: Path) -> None:
    """One run; prints its figures as one line of JSON."""
    from datasets import Dataset

    algorithm, settings = LIVING[name]
    adapter = lora("CAUSAL_LM") if "LoRA" in name else None
    penalty = {"kl_coef": 0.05} if algorithm == "ppo" else {"beta": 0.05, "num_generations": 2}
    prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": "lamp"}]}] * 16)
    settings = {**SETTINGS, **settings, **penalty, "peft_config": adapter}
    before = resident()
    trainer_of(algorithm, folder / "policy", folder / "out", prompts, **settings).train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print("RESULT " + json.dumps({"peak_mb": peak - before}))


def memories(folder: Path) -> None:
    from rlhf_trl_ext.models.tiny import build_tiny

    build_tiny(folder / "policy", hidden_size=512, layers=8, feed_forward_size=2048)
    for name in LIVING:
        command = [sys.executable, "-m", "evaluation.proofs.speed.grpo_vi", "--work", name, str(folder)]
        print(f"{name:<34} peak {measure(command)['peak_mb']:6.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="of one run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return memory(options.work[0], Path(options.work[1]))
    with tempfile.TemporaryDirectory() as folder:
        times(Path(folder), options.steps, options.rounds)
        memories(Path(folder))


if __name__ == "__main__":
    main()
