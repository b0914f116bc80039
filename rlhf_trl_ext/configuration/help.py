"""What `--help` shows: the groups of a launcher with a line for every choice, and its settings as its file has them."""

import re
from pathlib import Path

import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlhf_trl_ext.configuration.unread import KEYS

COMMAND = re.compile(r"(python -m|accelerate launch) ")


def groups(*, _root_: DictConfig) -> str:
    """Every group in the launcher's defaults list with what is chosen, and a line for each of its choices."""
    lines, shown = [], set()
    for group, chosen in reversed(_root_.hydra.runtime.choices.items()):
        name, _, _ = group.partition("@")
        if name.startswith("hydra/"):
            continue
        lines.append(f"{group}={'null' if chosen is None else chosen}{f'  (as {name})' if name in shown else ''}")
        choices = [] if name in shown else _loader().get_group_options(name)
        lines += [f"  {choice:<18}{description(_file(f'{name}/{choice}'))}" for choice in choices if choice[0] != "_"]
        shown.add(name)
    return _escaped(lines)


def description(file: Path) -> str:
    """The first sentence of the first comment line, a command before its colon left out; "" where there is none."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ").strip()
        if COMMAND.match(text):
            text = text.partition(": ")[2]
        if line.startswith("#") and text and not text.startswith("@package"):
            return re.split(r"[.;] ", text)[0].rstrip(".:")
    return ""


def settings(*, _root_: DictConfig) -> str:
    """The launcher's own YAML with its comments, without what it does not read."""
    shown: dict[str, list[str]] = {}
    for file in reversed(_files(_root_.hydra.job.config_name)):
        comments, block = [], []  # above a key; the key's own lines
        for line in file.read_text(encoding="utf-8").splitlines():
            if key := re.match(r"\w+", line):
                shown[key[0]] = block = [*comments, line]
            elif line.startswith(" "):
                block.append(line)
            comments = [*comments, line] if line.startswith("#") else []
    unread = KEYS.get(_root_.hydra.job.config_name, ())
    apart = ("defaults", "hydra", *_root_.hydra.runtime.choices, *unread)
    lines = [line for key, block in shown.items() if key not in apart for line in block]
    return _escaped([line for line in lines if not line.startswith(("# python -m", "# @package"))])


def _files(name: str) -> list[Path]:
    """A root configuration and those that its defaults list names, the launcher's own first."""
    file = _file(name)
    defaults = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults") or []
    named = [each for each in defaults if isinstance(each, str) and each != "_self_"]
    return [file, *(one for each in reversed(named) for one in _files(each))]


def _file(name: str) -> Path:
    """Where Hydra finds a configuration."""
    sources = [each.path.removeprefix("file://") for each in _loader().get_search_path().get_path()]
    return next(path for source in sources if (path := Path(source, f"{name}.yaml")).is_file())


def _loader():
    return GlobalHydra.instance().config_loader()


def _escaped(lines: list[str]) -> str:
    """Text that Hydra's template leaves as it is."""
    return "\n".join(lines).replace("$", "$$")
