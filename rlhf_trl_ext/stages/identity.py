"""What decides a stage's result, and its fingerprint, computed from what its kind declares (`kinds.py`) alone.

What is hashed: the keys of the configuration that the kind names, resolved; the content of every file and folder that
a value below them names, wherever it lies (with or without a slash, `~` expanded, through symbolic links, folders with
all below them), instead of its path; files that are known by name (judge prompts, constitutions, rubrics, chat
templates), also where they are a default; the source of the kind's own code and of every module outside installed
packages that the configuration names (`_target_` or a dotted text), with all that these import; the versions of torch,
TRL and what else trains, and of installed packages that a `_target_` names; the number of processes. The folder of a
finished stage is known by its fingerprint, so that moving a model does not retrain what stands on it, and its files
must be what it recorded. Names on the hub count as they are written, with their revision. What is not hashed: where
results go, how they are reported, how fast and at what cost a judge is asked, and files that code opens by itself.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, as_json
from rlhf_trl_ext.configuration.paths import adapter_base, adapter_folder
from rlhf_trl_ext.stages import files, kinds
from rlhf_trl_ext.stages.sources import is_installed, locate, module_of, source, string_defaults

PACKAGES = ("torch", "trl", "transformers", "datasets", "accelerate", "peft", "deepspeed", "tokenizers")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Identity:
    """What decides a result. settings: of the configuration; content: dotted key -> what is in the file it names."""

    settings: dict
    content: dict[str, object]
    code: dict[str, str]
    packages: dict[str, str]
    processes: str

    @property
    def fingerprint(self) -> str:
        """SHA-256, 16 hex digits. A path counts by what lies there, not by where it is."""
        settings = _located(self.settings, self.content)
        decides = [settings, self.content, self.code, self.packages, self.processes]
        return hashlib.sha256(as_json(decides).encode()).hexdigest()[:16]

    @property
    def record(self) -> dict:
        """What `differences` needs of a run beside its configuration; plain data."""
        return {name: getattr(self, name) for name in ("content", "code", "packages", "processes")}

    def differences(self, record: dict, settings: dict) -> list[str]:
        """In which keys, files, modules and packages another run differs: `key=value (recorded: other)`.

        record: of the other run; settings: the part of its configuration that decides.
        """
        ours, theirs = _flat(self.settings), _flat(settings)
        located = self.content.keys() | record["content"].keys()
        changes = [
            f"{key}={ours.get(key)} (recorded: {theirs.get(key)})"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key) and key not in located
        ]
        for name, words in (("content", "content of {}"), ("code", "source of {}"), ("packages", "version of {}")):
            mine, other = json.loads(as_json(getattr(self, name))), record[name]
            changes += [
                words.format(key) for key in sorted(mine.keys() | other.keys()) if mine.get(key) != other.get(key)
            ]
        if self.processes != record["processes"]:
            changes.append(f"processes={self.processes} (recorded: {record['processes']})")
        return changes


def identify(config: DictConfig, processes: int | None = None) -> Identity:
    """The identity of a stage. processes: that will run it; None: those that run now.

    Raises ConfigError for a kind that does not exist, a file that cannot be read, and a finished stage whose files are
    not what it recorded.
    """
    kind = kinds.kind_of(config)
    settings = declared(kind, OmegaConf.to_container(config, resolve=True))
    with as_config_error():
        reading = _Reading().of(settings)
    code = source(kind.code, *reading.modules, aside=kinds.ASIDE)
    packages = {name: number for name, number in versions().items() if name != "git_commit"}
    packages |= _versions_of(reading.installed)
    return Identity(settings, reading.content, code, packages, str(processes or os.environ.get("WORLD_SIZE", 1)))


def fingerprint(config: DictConfig, processes: int | None = None) -> str:
    """SHA-256 (16 hex digits) of everything that decides a stage's result; see `identify`."""
    return identify(config, processes).fingerprint


def digest(node) -> str:
    """SHA-256 (16 hex digits) of plain data, of the files that it names and of the code that its `_target_`s name."""
    node = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    reading = _Reading().of(node)
    decides = [_located(node, reading.content), reading.content, source(*reading.modules, aside=kinds.ASIDE)]
    return hashlib.sha256(as_json(decides).encode()).hexdigest()[:16]


def built_folder(config: DictConfig) -> Path:
    """Where a model that is made from code is kept."""
    build = OmegaConf.to_container(config.model, resolve=True).get("build")
    return Path(config.output_root) / "models" / digest(build)


def declared(kind: kinds.Kind, config: dict) -> dict:
    """The part of a resolved configuration that decides the result of a stage of this kind."""
    decides = {key: config.get(key) for key in kind.settings}
    for key, acts in kinds.ONLOOKERS.items():
        if key in decides and not (decides[key] or {}).get(acts):
            decides[key] = None
    if isinstance(decides.get("args"), dict):
        decides["args"] = {key: value for key, value in decides["args"].items() if key not in kinds.REPORTING}
    return deciding(decides)


def deciding(node, key: str = "", asks: bool = False):
    """A configuration without settings of judge requests (pace, cost) and without names of stages."""
    if isinstance(node, list):
        return [deciding(item, key, asks) for item in node]
    if not isinstance(node, dict):
        return node
    asks = str(node["_target_"]).startswith(kinds.ASKS) if "_target_" in node else asks
    left_out = kinds.ASKING if asks else set()
    return {
        name: deciding(value, f"{key}.{name}".strip("."), asks)
        for name, value in node.items()
        if name not in left_out and f"{key}.{name}".strip(".") not in kinds.PLANNED
    }


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that training runs on, and this project's git commit ("" outside git)."""
    numbers = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            numbers[package] = metadata.version(package)
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(FileNotFoundError):
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        numbers["git_commit"] = git.stdout.strip()
    return numbers


def _versions_of(modules: set[str]) -> dict[str, str]:
    """Versions of the distributions that hold these top-level modules; "" where none is known."""
    numbers = {}
    for module in sorted(modules - set(PACKAGES)):
        try:
            numbers[module] = metadata.version(module)
        except metadata.PackageNotFoundError:
            holders = metadata.packages_distributions().get(module, [])
            numbers[module] = " ".join(sorted(f"{holder} {metadata.version(holder)}" for holder in set(holders)))
    return numbers


@dataclass
class _Reading:
    """What a configuration names: files (content, by dotted key), modules to follow, installed top-level modules."""

    content: dict[str, object] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    installed: set[str] = field(default_factory=set)

    def of(self, node, key: str = "") -> "_Reading":
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


def _located(node, content: dict, key: str = ""):
    """A configuration with null for every text that names a file: its content counts instead."""
    if isinstance(node, dict):
        return {name: _located(value, content, f"{key}.{name}".strip(".")) for name, value in node.items()}
    if isinstance(node, list):
        return [_located(item, content, f"{key}.{number}".strip(".")) for number, item in enumerate(node)]
    return None if key in content else node


def _flat(node, key: str = "") -> dict:
    """Dotted key -> value of every leaf."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if pairs is None:
        return {key: node}
    return {k: v for name, value in pairs for k, v in _flat(value, f"{key}.{name}".strip(".")).items()}
