"""Step time of this project against a bare TRL script: same model, data, arguments and seed, in turn (A B A B ...).

`python -m evaluation.proofs.speed.overhead` prints a table and writes outputs/overhead.json; losses must be identical.
Time is that of `Trainer.train`: processor seconds, which other programs on the machine disturb less, and wall seconds.
"""

import argparse
import contextlib
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
import trl
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer, Trainer

from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.configuration.composing import compose_config
from rlhf_trl_ext.data.embedded import Embedded
from rlhf_trl_ext.models.tiny import build_tiny
from rlhf_trl_ext.stages.train import train

BARE = {
    "sft": (trl.SFTTrainer, trl.SFTConfig, "demonstrations"),
    "reward": (trl.RewardTrainer, trl.RewardConfig, "preferences"),
    "dpo": (trl.DPOTrainer, trl.DPOConfig, "preferences"),
    "grpo": (trl.GRPOTrainer, trl.GRPOConfig, "prompts"),
}


@contextlib.contextmanager
def timed():
    """Yields a list that receives (processor seconds, wall seconds) of every `Trainer.train` inside."""
    train_of_transformers, taken = Trainer.train, []

    def timed_train(self, *arguments, **keywords):
        begin = time.process_time(), time.perf_counter()
        result = train_of_transformers(self, *arguments, **keywords)
        taken.append((time.process_time() - begin[0], time.perf_counter() - begin[1]))
        return result

    Trainer.train = timed_train
    try:
        yield taken
    finally:
        Trainer.train = train_of_transformers


def ours(config: DictConfig, folder: Path) -> list[float]:
    """Losses of this project's `train`."""
    train(OmegaConf.merge(config, {"output_dir": str(folder)}))
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


def bare(config: DictConfig, folder: Path, peft_config=None) -> list[float]:
    """Losses of the script that one would write with TRL alone."""
    trainer_class, args_class, view = BARE[config.name]
    dtype = config.model.get("dtype", "float32")
    args = OmegaConf.to_container(config.args, resolve=True)
    args.pop("_target_")
    checkpoint = config.model.model_name_or_path
    data = OmegaConf.to_container(config.dataset, resolve=True)
    data.pop("_target_")
    dataset = Embedded(**data)
    rewards = {"reward_funcs": [dataset.gold]} if view == "prompts" else {}
    trainer = trainer_class(
        model=checkpoint,
        args=args_class(output_dir=str(folder), model_init_kwargs={"dtype": dtype}, **args),
        train_dataset=dataset.load(view),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
        peft_config=peft_config,
        **rewards,
    )
    trainer.train()
    trainer.save_model(str(folder))
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def compare(algorithm: str, steps: int, pairs: int, folder: Path) -> dict:
    """Median over pairs of the ratio ours / bare, after one pair that is not counted."""
    overrides = [f"algorithm={algorithm}", "reward=gold", f"++model.model_name_or_path={folder / 'model'}"]
    settings = {"max_steps": steps, "learning_rate": 1e-4, "logging_steps": 1, "save_strategy": "no"}
    config = compose_config("train", [*overrides, *(f"++args.{key}={value}" for key, value in settings.items())])
    config.evaluate = False
    if algorithm == "grpo":
        config.args.max_completion_length = 32
    times = {"ours": [], "bare": []}
    for pair in range(pairs + 1):
        losses = {}
        for way in (ours, bare) if pair % 2 else (bare, ours):
            with timed() as taken:
                losses[way.__name__] = way(config, folder / f"{algorithm}-{pair}-{way.__name__}")
            gc.collect()
            times[way.__name__] += taken[:1] if pair else []
        if losses["ours"] != losses["bare"] or len(losses["ours"]) != steps:
            raise AssertionError(f"{algorithm}: the losses of pair {pair} differ: {losses}")
    result = {"losses_identical": True}
    for index, clock in enumerate(("processor", "wall")):
        ratios = [a[index] / b[index] for a, b in zip(times["ours"], times["bare"], strict=True)]
        per_step = 1000 * statistics.median(seconds[index] for seconds in times["ours"]) / steps
        result[clock] = {"ratio": statistics.median(ratios), "ratios": ratios, "milliseconds_per_step": per_step}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithms", nargs="+", default=list(BARE), choices=list(BARE))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--output", default="outputs/overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "steps": options.steps,
    }
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(Path(folder) / "model")
        for algorithm in options.algorithms:
            results[algorithm] = result = compare(algorithm, options.steps, options.pairs, Path(folder))
            lines = [
                f"{clock} {result[clock]['ratio']:.3f} ({min(ratios):.3f} - {max(ratios):.3f})"
                for clock in ("processor", "wall")
                if (ratios := result[clock]["ratios"])
            ]
            print(f"{algorithm:<7} ours / bare: {', '.join(lines)}, losses identical", flush=True)
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
