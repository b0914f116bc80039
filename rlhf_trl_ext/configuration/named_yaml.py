"""YAML files that come with the project and are known by name, or a user's own by path."""

from pathlib import Path

import yaml


def file_of(name: str, folder: Path) -> Path:
    """The file that a name stands for: `<folder>/<name>.yaml` where there is one, else the path `name`."""
    path = folder / f"{name}.yaml"
    return path if path.is_file() else Path(name).expanduser()


def read(name: str, key: str, folder: Path):
    """Content of `<folder>/<name>.yaml`, or of the file at the path `name`.

    key: what the configuration calls it. Raises ValueError for a file that does not exist or is no YAML.
    """
    path = file_of(name, folder)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ValueError(f"{key}={name}: no such file; allowed are {known}, or a path to a YAML file.")
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{key}={name} is no YAML: {' '.join(str(error).split())}") from None
