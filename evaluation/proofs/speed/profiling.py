"""What the profiler costs, and whether its phases are the step: the same run with and without it, in turn.

`python -m evaluation.proofs.speed.profiling` prints a row an algorithm and writes outputs/profiling.json: processor
time of `Trainer.train` with profile=on over that without (median of pairs, after one that is not counted), whether all
losses are identical, and the sum of the phases over the step. Off, `rlhf_trl_ext.callbacks.profiling` is not even
loaded.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig

from evaluation.proofs.speed.overhead import ours, timed
from rlhf_trl_ext.callbacks.phases import OTHER
from rlhf_trl_ext.configuration.composing import compose_config
from rlhf_trl_ext.models.tiny import build_tiny

MEASURED = ("grpo", "ppo", "dpo", "sft")  # sampling, sampling with a critic, pairs with a reference, plain


def configured(algorithm: str, steps: int, folder: Path, profile: bool) -> DictConfig:
    """A short stage on the embedded data."""
    overrides = [f"algorithm={algorithm}", "reward=gold", f"++model.model_name_or_path={folder / 'model'}"]
    settings = {"max_steps": steps, "learning_rate": 1e-4, "logging_steps": 1, "save_strategy": "no"}
    settings |= {"max_completion_length": 32} if algorithm in ("grpo", "ppo") else {}
    overrides += [f"++args.{key}={value}" for key, value in settings.items()] + (["profile=on"] if profile else [])
    overrides += ["++args.critic_path=null"] if algorithm == "ppo" else []
    return compose_config("train", overrides)


def compare(algorithm: str, steps: int, pairs: int, folder: Path) -> dict:
    """Ratios on / off of each pair, and what the last profile says of itself."""
    times, losses, profile = {True: [], False: []}, {}, {}
    for pair in range(pairs + 1):
        for on in (True, False) if pair % 2 else (False, True):
            run = folder / f"{algorithm}-{pair}-{on}"
            with timed() as taken:
                losses[on] = ours(configured(algorithm, steps, folder, on), run)
            gc.collect()
            times[on] += [taken[0][0]] if pair else []
            if on:
                profile = json.loads((run / "profile.json").read_text())
        if losses[True] != losses[False]:
            raise AssertionError(f"{algorithm}: the losses of pair {pair} differ: {losses}")
    ratios = [on / off for on, off in zip(times[True], times[False], strict=True)]
    attributed = sum(taken for name, taken in profile["phases"].items() if name != OTHER) / profile["step_seconds"]
    whole = sum(profile["phases"].values()) / profile["step_seconds"]
    return {"ratio": statistics.median(ratios), "ratios": ratios, "sum": whole, "named": attributed, "profile": profile}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithms", nargs="+", default=list(MEASURED))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--output", default="outputs/profiling.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(Path(folder) / "model")
        ours(configured("sft", 1, Path(folder), False), Path(folder) / "off")
        if any("callbacks.profil" in name for name in sys.modules):
            raise AssertionError("the profiler was loaded by a run without it.")
        for algorithm in options.algorithms:
            results[algorithm] = result = compare(algorithm, options.steps, options.pairs, Path(folder))
            spread = f"{min(result['ratios']):.3f} - {max(result['ratios']):.3f}"
            sums = f"phases sum to {result['sum']:.2%} of the step, {result['named']:.1%} without `other`"
            print(f"{algorithm:<5} on / off: {result['ratio']:.3f} ({spread}); {sums}; losses identical", flush=True)
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
