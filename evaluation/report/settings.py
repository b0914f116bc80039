"""Settings of runs, from the configuration that each keeps in its folder: what a run is called, what sets two apart."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

CONFIG = "config.yaml"
# Where a run lies, and what was computed before it: no choice that anybody made.
PLACES = ("output_dir", "output_root", "reward.path", "args.critic_path", "needs", "defaults")
STAGE = re.compile(r"(?:.*/)?stages/([^/]+)-[0-9a-f]{16}$")  # the folder of a stage
NAMES = ("stage", "data", "model", "learning_rate")
MOST = 3  # settings that a name has


def settings(folder: Path) -> dict[str, str]:
    """Every setting of a run under its dotted name; empty where there is no configuration that can be read."""
    path = folder / CONFIG
    try:
        return dict(_read(path.resolve(), path.stat().st_mtime_ns))
    except OSError:
        return {}


@functools.lru_cache(maxsize=4096)
def _read(path: Path, changed: int) -> tuple[tuple[str, str], ...]:
    """changed: when the file was written last, so that another version of it is read again."""
    try:
        return tuple(_flat(yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)), ""))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        return ()


def _flat(value, name: str) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        children = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, list) and any(isinstance(child, dict | list) for child in value):
        children = [(str(place), child) for place, child in enumerate(value)]
    else:
        texts = map(str, value if isinstance(value, list) else [value])
        return [(name, ", ".join(STAGE.sub(r"\1", text) for text in texts))]
    pairs = [pair for key, child in children for pair in _flat(child, f"{name}.{key}" if name else key)]
    return [pair for pair in pairs if not any(pair[0] == own or pair[0].startswith(own + ".") for own in PLACES)]


def changed(first: dict[str, str], own: dict[str, str]) -> list[str]:
    """Lines of a diff: settings of the first run (`-`) that another has otherwise (`+`), in alphabetical order."""
    lines = []
    for key in sorted(first.keys() | own.keys()):
        if first.get(key) != own.get(key):
            lines += [f"{sign} {key}: {side[key]}" for sign, side in (("-", first), ("+", own)) if key in side]
    return lines


def names_apart(folders: Sequence[Sequence[Path]]) -> list[str]:
    """What sets runs apart, each of one or more folders: up to three settings, `learning_rate=0.001`; else empty.

    A setting is named by its last part, and by its stage where a run has several folders.
    """
    known: list[dict[str, str]] = []
    for own in folders:
        parts = [(f"{folder.name}." if len(own) > 1 else "", settings(folder)) for folder in own]
        known.append({prefix + key: value for prefix, each in parts for key, value in each.items()})
    every = dict.fromkeys(key for own in known for key in own)
    keys = [key for key in every if len({own.get(key) for own in known}) > 1]
    if not 0 < len(keys) <= MOST:
        return [""] * len(folders)
    short = {key: key.split(".")[-1] for key in keys}
    short = {key: key if list(short.values()).count(name) > 1 else name for key, name in short.items()}
    return [" ".join(f"{short[key]}={own.get(key, 'absent')}" for key in keys) for own in known]


def about(folder: Path) -> dict[str, str]:
    """stage, data, model and learning_rate of a run, as a page names it; empty texts where they are not known."""
    own = settings(folder)
    target = own.get("dataset.convert._target_") or own.get("dataset._target_", "")
    data = own.get("dataset.path") or (target.split(".")[-2] if "." in target else target)
    model = own.get("model.model_name_or_path", "")
    if model in ("", "None"):
        model = own.get("model.build._target_", "").split(".")[-1]
    rate = own.get("args.learning_rate", "")
    return dict(zip(NAMES, (own.get("name", ""), Path(data).name, model.rstrip("/").split("/")[-1], rate), strict=True))
