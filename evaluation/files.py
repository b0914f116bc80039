"""What an evaluation writes: JSON that every parser reads."""

import json
import math
from pathlib import Path

from rlhf_trl_ext.files import write


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
