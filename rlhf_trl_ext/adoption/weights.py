"""Checkpoints of other frameworks as folders that transformers loads."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rlhf_trl_ext.files import read_mark

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
HEADS = ("value_head", "score", "v_head")


def find(folder: Path) -> Path | None:
    """The newest checkpoint in a run's folder: of transformers, adapters, DeepSpeed's or verl's shards."""
    places = [path for path in (folder, *folder.glob("**/")) if _kind(path)]
    return max(places, key=lambda path: (path == folder, _number(path), _kind(path) == "transformers"), default=None)


def _kind(path: Path) -> str | None:
    if any(path.glob("model_world_size_*_rank_*.pt")):
        return "verl"
    if any(path.glob("*_model_states.pt")) or ((path / "latest").is_file() and any(path.glob("*/*_model_states.pt"))):
        return "deepspeed"
    if (path / "adapter_config.json").is_file() and any(path.glob("adapter_model*")):
        return "adapter"
    return "transformers" if (path / "config.json").is_file() and any(map(any, map(path.glob, WEIGHTS))) else None


def _number(path: Path) -> int:
    """Steps in the names of the folders, the last one; 0 without."""
    numbers = re.findall(r"(?:checkpoint-|global_steps?_?)(\d+)", str(path))
    return int(numbers[-1]) if numbers else 0


def opens_pickles(checkpoint: Path) -> bool:
    """Whether `adopt` has other packages load pickles of this checkpoint, which can run code."""
    kind = _kind(checkpoint)
    return kind == "deepspeed" or (kind == "verl" and not _whole(checkpoint) and bool(importlib.util.find_spec("verl")))


def adopt(checkpoint: Path, target: Path) -> str:
    """Make `target` a folder that loads: a link where nothing is to be changed; returns what was done.

    Raises ValueError for what cannot be converted here, with what to do.
    """
    kind = _kind(checkpoint)
    if kind == "verl":
        return _verl(checkpoint, target)
    if kind == "deepspeed":
        return _deepspeed(checkpoint, target)
    if kind == "transformers" and (head := _reward_head(checkpoint)):
        return _openrlhf(checkpoint, target, head)
    target.symlink_to(checkpoint.resolve(), target_is_directory=True)
    return f"a link to {checkpoint}" + (" (adapters: give merged weights where they are needed)" * (kind == "adapter"))


def _whole(checkpoint: Path) -> Path | None:
    """The merged model that verl may have saved beside its shards."""
    folder = checkpoint / "huggingface"
    return folder if folder.is_dir() and any(map(any, map(folder.glob, WEIGHTS))) else None


def _verl(checkpoint: Path, target: Path) -> str:
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(checkpoint), "--target_dir", str(target)]
    if whole := _whole(checkpoint):
        target.symlink_to(whole.resolve(), target_is_directory=True)
        return f"a link to {whole}"
    if importlib.util.find_spec("verl") is None:
        raise ValueError(
            f"{checkpoint} holds FSDP shards of verl, which is not installed here: run "
            f"`python {' '.join(command[1:])}` where it is, then adopt {target}."
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"verl.model_merger failed on {checkpoint}: {done.stderr.strip().splitlines()[-1:]}")
    return "merged by verl.model_merger"


def _deepspeed(checkpoint: Path, target: Path) -> str:
    from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

    inner = any(checkpoint.glob("*_model_states.pt"))
    root, tag = (checkpoint.parent, checkpoint.name) if inner else (checkpoint, None)
    convert_zero_checkpoint_to_fp32_state_dict(str(root), str(target), safe_serialization=True, tag=tag)
    places = [path for path in (checkpoint, root, root.parent) if (path / "config.json").is_file()]
    if not places:
        raise ValueError(
            f"{root} has no config.json beside DeepSpeed's shards: the weights are in {target}; copy config.json and "
            "the tokenizer of its model there."
        )
    _copy_small(places[0], target)
    return "converted by DeepSpeed's zero_to_fp32"


def _copy_small(source: Path, target: Path) -> None:
    """Configuration and tokenizer."""
    for pattern in ("*.json", "*.model", "*.txt", "*.jinja"):
        for path in source.glob(pattern):
            if not path.name.endswith(".index.json") and path.name != "trainer_state.json":
                shutil.copy(path, target)


def _reward_head(checkpoint: Path) -> str | None:
    """The prefix of a value head beside a bare base model, as OpenRLHF writes reward models and critics."""
    config = read_mark(checkpoint / "config.json")
    if config is None:
        raise ValueError(f"{checkpoint}/config.json is no JSON: copy the checkpoint again.")
    if any("ForSequenceClassification" in name for name in config.get("architectures") or []):
        return None
    names = [config["value_head_prefix"]] if "value_head_prefix" in config else HEADS
    files = sorted(checkpoint.glob("*.safetensors"))
    return next((name for name in names if any(f"{name}.weight" in _keys(file) for file in files)), None)


def _keys(file: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def _openrlhf(checkpoint: Path, target: Path, head: str) -> str:
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(checkpoint, num_labels=1)
    name = AutoModelForSequenceClassification._model_mapping[type(config)].__name__
    config.architectures = [name]
    target.mkdir(parents=True)
    weights = {k: v for file in sorted(checkpoint.glob("*.safetensors")) for k, v in load_file(file).items()}
    weights["score.weight"] = weights.pop(f"{head}.weight")
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    _copy_small(checkpoint, target)
    config.save_pretrained(target)
    normalised = " (its rewards are not normalised by mean and std)" * bool(getattr(config, "normalize_reward", False))
    return f"a reward model, its head {head} renamed to score{normalised}"
