"""Folders and files that a configuration names, looked at before anything is loaded."""

import json
import os
import re
from pathlib import Path

WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")
TOKENIZER_FILES = (*TOKENIZERS, "*token*.json", "merges.txt", "*.jinja")
ADAPTER = "adapter_config.json"
HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


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


def checkpoint_refusal(key: str, path: str, reward: bool | None = False, tokenizer: bool = True) -> str | None:
    """Why `path` is no model that can be loaded, in one sentence that begins with `key=path`; None where it is one.

    A folder is looked into, one of adapters with its base; a hub id, also as org/name@revision, must be in the local
    cache or within reach. reward: a classifier with one label is needed, None: either kind will do. tokenizer: of its
    own is needed.
    """
    name, revision = split_revision(path)
    if adapters := adapter_folder(path):
        refusal = _adapter(adapters, reward, tokenizer)
    else:
        refusal = _local(name, tokenizer) if is_local(name) else _hub(name, revision)
    if refusal is None and reward and not adapters:
        refusal = _no_reward(name, revision)
    return f"{key}={path}: {refusal}" if refusal else None


def split_revision(path: str) -> tuple[str, str | None]:
    """(hub id, revision) of `org/name@revision`; (path, None) of any other name and of what exists."""
    match = re.fullmatch(r"([\w][\w.-]*(?:/[\w][\w.-]*)?)@([\w][\w./-]*)", path)
    return (match[1], match[2]) if match and not Path(path).exists() else (path, None)


def adapter_folder(path: str, revision: str | None = None) -> str | None:
    """The folder of the adapters that a folder or hub id holds, those of the hub downloaded; None for a whole model."""
    name, own = split_revision(path)
    if is_local(name):
        return name if Path(name, ADAPTER).is_file() and not Path(name, "config.json").exists() else None
    if not HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import snapshot_download
    from transformers.utils.hub import cached_file

    optional = {"revision": own or revision, "_raise_exceptions_for_missing_entries": False}
    optional |= {"_raise_exceptions_for_connection_errors": False, "_raise_exceptions_for_gated_repo": False}
    try:
        if cached_file(name, ADAPTER, **optional) is None or cached_file(name, "config.json", **optional) is not None:
            return None
    except OSError:  # no such repository or revision, as `checkpoint_refusal` says
        return None
    return snapshot_download(name, revision=own or revision, allow_patterns=["adapter_*", *TOKENIZER_FILES])


def adapter_base(path: str) -> str:
    """The folder or hub id of the model that a folder of adapters needs; a relative one is also looked for beside them.

    Raises ValueError where adapter_config.json names none, or one that is not there.
    """
    file = Path(path, ADAPTER)
    try:
        base = json.loads(file.read_text()).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is no JSON object; save or copy the adapter again.") from error
    if not base:
        raise ValueError(f"{file} names no base_model_name_or_path; give one there.")
    if not Path(base).exists() and Path(path, base).exists():
        return str(Path(path, base))
    if is_local(base) and not Path(base).exists():
        raise ValueError(f"its base {base} is not there; mend base_model_name_or_path in {file}.")
    return base


def is_local(path: str) -> bool:
    """Whether a model is looked for on this machine alone."""
    path = split_revision(path)[0]
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or Path(path).exists() or "\\" in path


def _adapter(path: str, reward: bool | None, tokenizer: bool) -> str | None:
    """Why adapters cannot be used: of another kind, without weights, or without their base."""
    folder = Path(path)
    try:
        base = adapter_base(path)
    except ValueError as error:
        return str(error)
    kind = json.loads((folder / ADAPTER).read_text()).get("task_type")
    expected = "SEQ_CLS" if reward else "CAUSAL_LM"
    if reward is not None and kind not in (None, expected):
        return f"it holds adapters for {kind}, and {expected} is needed here."
    if not _weights(folder):
        return "it holds no weights of its adapters (adapter_model.safetensors); save or copy them again."
    own = any((folder / name).exists() for name in TOKENIZERS)
    refusal = _local(base, tokenizer and not own) if is_local(base) else _hub(*split_revision(base))
    return f"it holds adapters on {base}: {refusal}" if refusal else None


def _weights(folder: Path) -> bool:
    return any(file.name != "training_args.bin" for pattern in WEIGHTS for file in folder.glob(pattern))


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
        inside = sorted(
            {str(file.parent) for name in ("config", "adapter_config") for file in folder.glob(f"*/{name}.json")}
        )
        place = f"one of its folders, {' or '.join(inside[-2:])}" if inside else "the folder of a saved model"
        return f"the folder holds no config.json, so no model; give {place}, or a hub id."
    try:
        json.loads((folder / "config.json").read_text())
    except ValueError:
        return "its config.json is no JSON; save or copy the model again."
    if not _weights(folder):
        return "the folder holds no weights (*.safetensors); save or copy the model again."
    if tokenizer and not any((folder / name).exists() for name in TOKENIZERS):
        return "the folder holds no tokenizer (tokenizer.json); save the model's tokenizer there too."
    return None


def _hub(path: str, revision: str | None = None) -> str | None:
    if not HUB_ID.fullmatch(path):
        return "neither a folder nor a hub id; give a folder with a model, or an id such as org/name."
    from transformers.utils.hub import cached_file

    try:
        cached_file(path, "config.json", revision=revision)
    except OSError as error:
        if "connect" in str(error) or "offline" in str(error).lower():
            return (
                "no such folder, and as a hub id it is not in the local cache while the hub is out of reach; "
                "give a folder, or download it first (`hf download`)."
            )
        return f"no such folder, and the hub says: {' '.join(str(error).split())[:200]}"
    return None


def _no_reward(path: str, revision: str | None) -> str | None:
    from transformers.utils.hub import cached_file

    config = json.loads(Path(cached_file(path, "config.json", revision=revision)).read_text())
    classes = config.get("architectures") or []
    if classes and not any("SequenceClassification" in name or "Reward" in name for name in classes):
        return (
            f"it is a {classes[0]}, which has no trained score; give a reward model (…ForSequenceClassification with "
            "one label), as algorithm=reward trains."
        )
    labels = config.get("num_labels") or len(config.get("id2label") or "01")  # two where none are named
    if classes and labels != 1:
        return f"it has num_labels={labels}, and a reward model has one; train one with algorithm=reward."
    return None
