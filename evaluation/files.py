"""What an evaluation writes: JSON that every parser reads."""

import json
from pathlib import Path

from rlhf_trl_ext.files import finite, write


def write_json(path: Path, data) -> None:
    """Write strict JSON: what is no finite number is null."""
    write(path, json.dumps(finite(data), indent=2, allow_nan=False))
