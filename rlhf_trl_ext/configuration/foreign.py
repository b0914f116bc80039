"""Configuration files from outside the project: a stage's folder, downloaded perhaps, that is run again."""

import itertools
import os
import re
from pathlib import Path

import yaml
from omegaconf import DictConfig


def hydra_settings(arguments: list[str]) -> list[str]:
    """Sentences on files of `--config-dir` and `--config-path` that set Hydra up, which runs code before a launcher."""
    settings = []
    for folder in _folders(arguments):
        for file in sorted(_yaml_files(folder)):
            if reason := _sets_hydra(file, folder):
                settings.append(
                    f"{file}: {reason}, and Hydra's own settings run code before anything is checked; remove it, or "
                    "put it into the command line (hydra.<key>=<value>)."
                )
    return settings


def own_folder(config: DictConfig, folder: Path, overrides: list[str]) -> None:
    """Set `output_dir` to `folder` and `overwrite` to false in a configuration file of `folder`; overrides come first.

    A stage's configuration names the folder that it was written to; copied or downloaded, it means its own.
    """
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    if config.get("output_dir") is not None and "output_dir" not in keys:
        config.output_dir = str(folder)
    if config.get("overwrite") and "overwrite" not in keys:
        config.overwrite = False


def folder_of(config_name: str, sources) -> Path | None:
    """The folder outside the project that the launcher's configuration file lies in, or None. sources: Hydra's."""
    for source in sources:
        if source.provider == "command-line" and (Path(source.path) / f"{config_name}.yaml").is_file():
            return Path(source.path)
    return None


def _folders(arguments: list[str]) -> list[Path]:
    names = ("--config-dir", "-cd", "--config-path", "-cp")
    folders = [b for a, b in itertools.pairwise(arguments) if a in names]
    folders += [argument.partition("=")[2] for argument in arguments if argument.partition("=")[0] in names[::2]]
    return [Path(folder) for folder in folders if folder and Path(folder).is_dir()]


def _yaml_files(folder: Path) -> list[Path]:
    walked = os.walk(folder, followlinks=True)
    return [Path(place) / name for place, _, names in walked for name in names if name.endswith((".yaml", ".yml"))]


def _sets_hydra(file: Path, folder: Path) -> str | None:
    text = file.read_text(errors="replace")
    if "hydra" in file.relative_to(folder).parts[:-1]:
        return "it lies in a folder hydra/"
    if re.search(r"^\s*#\s*@package\s+\S*hydra", text, re.MULTILINE):
        return "its package is hydra"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:  # Hydra's loader answers it, or it is no configuration
        return None
    if not isinstance(content, dict):
        return None
    if any(str(key).partition(".")[0] == "hydra" for key in content):
        return "it holds the key hydra"
    for item in content.get("defaults") or []:
        words = f"{item}"
        if re.search(r"@\S*hydra", words) or ".." in words:
            return "its defaults reach into hydra or out of its folder"
    return None
