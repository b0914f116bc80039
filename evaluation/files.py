"""Files that an evaluation writes: whole or not at all, and JSON that every parser reads."""

import json
import math
import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a file aside and rename it, so that it is there wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, data) -> None:
    """Write strict JSON: what is no finite number is null."""
    write(path, json.dumps(finite(data), indent=2, allow_nan=False))


def finite(data):
    """Plain data with None in the place of every float that is not finite."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
