"""What a configuration names: the content of files and folders, and the modules whose source decides."""

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.paths import adapter_base, adapter_folder
from rlhf_trl_ext.stages import files, kinds
from rlhf_trl_ext.stages.sources import is_installed, locate, module_of, string_defaults

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass
class Reading:
    """What a configuration names: files (content, by dotted key), modules to follow, installed top-level modules."""

    content: dict[str, object] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    installed: set[str] = field(default_factory=set)

    def of(self, node, key: str = "") -> "Reading":
        if isinstance(node, dict):
            target = node.get("_target_")
            defaults = string_defaults(target) if isinstance(target, str) else {}
            for name in defaults.keys() & kinds.NAMED_FILES.keys() - node.keys():
                self._text(defaults[name], f"{key}.{name}".strip("."))
            for name, value in node.items():
                self.of(value, f"{key}.{name}".strip("."))
        elif isinstance(node, list):
            for number, item in enumerate(node):
                self.of(item, f"{key}.{number}".strip("."))
        elif isinstance(node, str):
            self._text(node, key)
        return self

    def _text(self, text: str, key: str) -> None:
        last = key.rpartition(".")[2]
        if last not in kinds.WORDS or _named_file(text, key):
            path = _named_file(text, key) or _path(text)
            if path is not None:
                self.content[key] = _content(path, f"{key}={text}")
                if base := _base_of(path):
                    self.content[f"{key} base"] = _content(base, f"{key}={text}, its base {base}")
        if DOTTED.fullmatch(text) and (module := module_of(text)):
            if is_installed(module, locate(module)):
                self.installed |= {module.partition(".")[0]} if last == "_target_" else set()
            else:
                self.modules.add(module)


def _base_of(path: Path) -> Path | None:
    """The folder of the model that adapters lie on, where it is on this machine."""
    with contextlib.suppress(ValueError):  # the configuration's review says what is wrong with them
        base = Path(adapter_base(folder)) if (folder := adapter_folder(str(path))) else None
        return base if base is not None and base.exists() else None
    return None


def _named_file(text: str, key: str) -> Path | None:
    """The file that a name stands for, where its key takes names."""
    for end, (folder, suffix) in kinds.NAMED_FILES.items():
        if f".{key}".endswith(f".{end}") and (folder / f"{text}{suffix}").is_file():
            return folder / f"{text}{suffix}"
    return None


def _path(text: str) -> Path | None:
    """The file or folder that a text names, if there is one."""
    if not re.search(r"\w", text) or "\n" in text or "\0" in text:
        return None
    path = os.path.expanduser(text)
    return Path(path) if os.path.exists(path) else None


def _content(path: Path, where: str):
    """What lies at a path: [name, digest] of a file, names and digests in a folder, a finished stage's fingerprint.

    Raises ConfigError for a finished stage whose files are not what it recorded.
    """
    if path.is_file():
        return [path.name, files.digest(path)]
    if not (path / "stage.json").is_file():
        return files.tree(path)
    try:
        recorded = json.loads((path / "stage.json").read_text())
        mark, results = recorded["fingerprint"], recorded.get("files", {})
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{where}: stage.json in it cannot be read; move the folder away and run its stage again."
        ) from None
    if wrong := files.damage(path, results):
        raise ConfigError(f"{where}: {wrong} since that stage finished; move the folder away and run its stage again.")
    return ["stage", mark]
