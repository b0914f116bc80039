"""Folders and files that a configuration names, looked at before anything is loaded."""

import json
import os
import re
from pathlib import Path

WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")


def creatable(path: str) -> str | None:
    """Why nothing can be written at `path`, which need not exist; None where it can."""
    if path.startswith("~"):
        return f"the shell expands ~ only at the beginning of a word; give {Path(path).expanduser()}"
    target = Path(path)
    parent = next(folder for folder in [target, *target.absolute().parents] if folder.exists())
    if parent != target and not parent.is_dir():
        return f"{parent} is a file, and a folder is needed there; give another path"
    if not os.access(parent, os.W_OK) or str(parent.resolve()).startswith("/proc"):
        return f"nothing can be written to {parent}; give another path"
    return None


def folder_creatable(path: str) -> str | None:
    """As `creatable`, of a folder."""
    return "it is a file, and a folder is needed; give another path" if Path(path).is_file() else creatable(path)


def checkpoint_refusal(key: str, path: str, reward: bool = False, tokenizer: bool = True) -> str | None:
    """Why `path` is no model that can be loaded, in one sentence that begins with `key=path`; None where it is one.

    A folder is looked into; a hub id must be in the local cache or within reach. reward: a classifier with one label is
    needed. tokenizer: of its own is needed.
    """
    message = _local(path, tokenizer) if is_local(path) else _hub(path)
    message = message or (_no_reward(path) if reward else None)
    return f"{key}={path}: {message}" if message else None


def is_local(path: str) -> bool:
    """Whether a model is looked for on this machine alone."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or Path(path).exists() or "\\" in path


def _local(path: str, tokenizer: bool) -> str | None:
    folder = Path(path)
    if not folder.exists():
        whole = Path(path).expanduser()
        if path.startswith("~") and whole.exists():
            return f"the shell expands ~ only at the beginning of a word; give {whole}."
        return "no such folder; give a folder with a model, or a hub id."
    if not folder.is_dir():
        return "it is no folder; give a folder with config.json and weights, or a hub id."
    if not (folder / "config.json").exists():
        if (folder / "adapter_config.json").exists():
            return (
                "it holds an adapter without its base; give the folder of the merged model, which a stage leaves "
                "around its adapter/, or merge it first (peft's merge_and_unload)."
            )
        return "the folder holds no config.json, so no model; give the folder of a saved model, or a hub id."
    try:
        json.loads((folder / "config.json").read_text())
    except ValueError:
        return "its config.json is no JSON; save or copy the model again."
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        return "the folder holds no weights (*.safetensors); save or copy the model again."
    if tokenizer and not any((folder / name).exists() for name in TOKENIZERS):
        return "the folder holds no tokenizer (tokenizer.json); save the model's tokenizer there too."
    return None


def _hub(path: str) -> str | None:
    if not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", path):
        return "neither a folder nor a hub id; give a folder with a model, or an id such as org/name."
    from transformers.utils.hub import cached_file

    try:
        cached_file(path, "config.json")
    except OSError as error:
        if "connect" in str(error) or "offline" in str(error).lower():
            return (
                "no such folder, and as a hub id it is not in the local cache while the hub is out of reach; "
                "give a folder, or download it first (`hf download`)."
            )
        return f"no such folder, and the hub says: {' '.join(str(error).split())[:200]}"
    return None


def _no_reward(path: str) -> str | None:
    from transformers.utils.hub import cached_file

    config = json.loads(Path(cached_file(path, "config.json")).read_text())
    classes = config.get("architectures") or []
    if classes and not any("SequenceClassification" in name or "Reward" in name for name in classes):
        return (
            f"it is a {classes[0]}, which has no trained score; give a reward model (…ForSequenceClassification with "
            "one label), as algorithm=reward trains."
        )
    return None
