"""Folders of configuration files: at the root of a clone, inside the package once it is installed from a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


CONF = _folder("conf")
DEEPSPEED_CONFIGS = _folder("deepspeed_configs")
