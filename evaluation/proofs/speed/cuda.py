"""Speed against bare TRL on a GPU, in bfloat16, with LoRA and without (`make gpu`).

The model is a Llama of the sizes of Qwen2.5-0.5B, 0.49 B random parameters, built from its configuration: nothing is
downloaded. Both ways run the same model, data, arguments and seed in turn; the ratio is that of the wall time of
`Trainer.train`, median of pairs after one that is not counted. `--cpu --tiny` runs the same code in seconds anywhere.
"""

import argparse
import gc
import json
import platform
import statistics
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig

from evaluation.proofs.memory.shapes import build_shape
from evaluation.proofs.speed.overhead import BARE, bare, ours, timed
from rlhf_trl_ext.configuration.checks import build
from rlhf_trl_ext.configuration.composing import compose_config

HALF_A_BILLION = {"hidden": 896, "heads": 14, "kv_heads": 2, "head_dim": 64, "intermediate": 4864, "layers": 24}
HALF_A_BILLION |= {"vocabulary": 151936}
TINY = {"hidden": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "intermediate": 128, "layers": 2, "vocabulary": 1024}
LORA = ["++model.use_peft=true", "++model.lora_target_modules=[all-linear]", "++model.lora_r=16"]


def configuration(algorithm: str, lora: bool, model: Path, steps: int, rows: int, on_cpu: bool) -> DictConfig:
    """A training configuration of `launchers.train`, on a GPU in bfloat16 with gradient checkpointing as TRL has it."""
    settings = {"max_steps": steps, "learning_rate": 1e-5, "logging_steps": 1, "save_strategy": "no"}
    settings |= {"per_device_train_batch_size": rows, "disable_tqdm": True, "use_cpu": on_cpu, "bf16": not on_cpu}
    settings |= {"gradient_checkpointing": not on_cpu}
    if hasattr(BARE[algorithm][1], "max_completion_length"):
        settings["max_completion_length"] = 16 if on_cpu else 128
    overrides = [f"algorithm={algorithm}", "reward=gold", f"++model.model_name_or_path={model}"]
    overrides += [f"++model.dtype={'float32' if on_cpu else 'bfloat16'}", *(LORA if lora else [])]
    config = compose_config("train", [*overrides, *(f"++args.{key}={value}" for key, value in settings.items())])
    config.evaluate = False
    return config


def compare(config: DictConfig, pairs: int, folder: Path) -> dict:
    """Median ratio of wall times, ours / bare, all ratios, and the largest difference between the losses."""
    peft_config = build(config.model, "model").trainer_arguments()["peft_config"]
    times, differences = {"ours": [], "bare": []}, []
    for pair in range(pairs + 1):
        losses = {}
        for way in ("ours", "bare") if pair % 2 else ("bare", "ours"):
            place = folder / f"{config.name}-{peft_config is not None}-{pair}-{way}"
            with timed() as taken:
                losses[way] = ours(config, place) if way == "ours" else bare(config, place, peft_config)
            gc.collect()
            torch.cuda.empty_cache()
            times[way] += [taken[0][1]] if pair else []
        differences += [abs(a - b) for a, b in zip(losses["ours"], losses["bare"], strict=True)]
    ratios = [a / b for a, b in zip(times["ours"], times["bare"], strict=True)]
    seconds = statistics.median(times["ours"])
    return {"ratio": statistics.median(ratios), "ratios": ratios, "seconds": seconds, "difference": max(differences)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=list(BARE), choices=list(BARE))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="without a GPU, in float32")
    parser.add_argument("--tiny", action="store_true", help="a model of 0.1 M parameters")
    parser.add_argument("--output", type=Path, default=Path("outputs/cuda.json"))
    options = parser.parse_args()
    if not (options.cpu or torch.cuda.is_available()):
        parser.exit(2, "error: no CUDA device is found; --cpu --tiny shows that the code runs.\n")
    hardware = platform.processor() or platform.machine() if options.cpu else torch.cuda.get_device_name()
    results = {"hardware": hardware, "torch": torch.__version__, "steps": options.steps, "rows": options.rows}
    print(f"on {hardware}, torch {torch.__version__}, {options.steps} steps of {options.rows} rows")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = TINY if options.tiny else HALF_A_BILLION
        build_shape(folder / "model", dtype="float32" if options.cpu else "bfloat16", **sizes)
        for algorithm in options.algorithms:
            for lora in (False, True):
                run = (algorithm, lora, folder / "model", options.steps, options.rows, options.cpu)
                found = compare(configuration(*run), options.pairs, folder)
                results[f"{algorithm}{' LoRA' if lora else ''}"] = found
                print(
                    f"{algorithm:<7}{'LoRA' if lora else '':<5} ours / bare {found['ratio']:.3f} "
                    f"({min(found['ratios']):.3f} - {max(found['ratios']):.3f}), "
                    f"largest difference of losses {found['difference']:.2g}",
                    flush=True,
                )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
