"""Folders that hold several data sets: splits of a DatasetDict, entries of dataset_info.json, train and test files."""

import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

from rlhf_trl_ext.data import reading

logger = logging.getLogger(__name__)

# How names of files and folders begin, or go on after a hyphen, dot or underscore, that hold a split.
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
}
SPLITS |= {"evaluation": ("eval", "evaluation")}
SOURCES = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
ENTRY = {"file_name", "formatting", "ranking", "columns", "tags"}  # of dataset_info.json, what is read


class Chosen(NamedTuple):
    """files: name -> file. columns, tags: as `forms.Forms` takes them."""

    files: dict[str, Path]
    columns: dict[str, str] | None
    tags: dict[str, str] | None = None


def chosen_files(path: str, subset: str | None, columns: dict[str, str] | None) -> Chosen:
    """What `subset` names in a folder that holds several data sets, by default its training split.

    Raises ValueError for a subset that is not there, and for a path without data.
    """
    root = Path(path).expanduser()
    folder = root.parent if root.name == "dataset_info.json" else root
    if (folder / "dataset_dict.json").is_file():
        known = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        return Chosen(reading.local_files(str(folder / _split(path, known, subset))), columns)
    info = folder / "dataset_info.json"
    if info.is_file() and not (folder / "state.json").is_file():
        try:
            described = json.loads(info.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"path={info} is no JSON ({error}); mend it, or give one data file.") from error
        if _of_llama_factory(described):
            file, named, tags = llama_factory(described, subset)
            return Chosen(reading.local_files(str(folder / file)), columns or named, tags)
    files = reading.local_files(path)
    splits = {name: split_of(name) for name in files}
    if any(splits.values()):  # what lies beside a test split without a name of its own is for training
        splits = {name: split or "train" for name, split in splits.items()}
    known = list(dict.fromkeys(filter(None, splits.values())))
    if len(known) > 1:
        chosen = _split(path, known, subset)
        return Chosen({name: file for name, file in files.items() if splits[name] == chosen}, columns)
    if subset is not None:
        raise ValueError(f"subset={subset}: {path} describes no data sets by name; leave dataset.subset out.")
    return Chosen(files, columns)


def split_of(name: str) -> str | None:
    """The split that a file's name, or else that of a folder around it, says that it holds."""
    for part in reversed(Path(name.lower()).parts):
        for word in re.split(r"[-_.\s]", part):
            if split := next((split for split, words in SPLITS.items() if word in words), None):
                return split
    return None


def _split(path: str, known: list[str], subset: str | None) -> str:
    chosen = subset or next((name for name in known if name == "train" or len(known) == 1), None)
    if chosen not in known:
        raise ValueError(f"subset={chosen}: allowed are {', '.join(known)}, the splits in {path}.")
    logger.info("path=%s holds the splits %s: only %s is read (dataset.subset)", path, ", ".join(known), chosen)
    return chosen


def _of_llama_factory(described) -> bool:
    """Whether a dataset_info.json is LLaMA-Factory's, and not that of a data set of `datasets`."""
    entries = described.values() if isinstance(described, dict) else ()
    return any(isinstance(entry, dict) and SOURCES & entry.keys() for entry in entries)


def llama_factory(info: dict, name: str | None) -> tuple[str, dict[str, str] | None, dict[str, str]]:
    """(file name, our column -> theirs where it names any, tags) of an entry of LLaMA-Factory's dataset_info.json.

    name: of the entry; may be None where there is one. Raises ValueError for one that is not there or is on a hub.
    """
    name = next(iter(info)) if name is None and len(info) == 1 else name
    if name not in info:
        raise ValueError(f"subset={name}: allowed are {', '.join(sorted(info))}, the entries of dataset_info.json.")
    entry = info[name]
    if "file_name" not in entry:
        raise ValueError(f"subset={name} of dataset_info.json names no file: give its hub data set as dataset.hub.")
    if unread := {key: entry[key] for key in sorted(set(entry) - ENTRY)}:
        given = ", ".join(f"{key}={value}" for key, value in unread.items())
        logger.warning(
            "subset=%s: %s of dataset_info.json is not applied (dataset.max_samples limits rows)", name, given
        )
    alpaca = {"instruction": "prompt", "input": "query", "output": "response"}
    ours = {"conversations": "messages"} if entry.get("formatting") == "sharegpt" else alpaca
    ours |= {key: key for key in ("chosen", "rejected", "kto_tag", "system", "history", "tools", "images", "videos")}
    theirs = entry.get("columns") or {}
    named = {our: theirs[key] for our, key in ours.items() if theirs.get(key)}
    return entry["file_name"], named or None, entry.get("tags") or {}
