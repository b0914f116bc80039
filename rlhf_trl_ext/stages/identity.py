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
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import as_config_error, as_json
from rlhf_trl_ext.stages import kinds
from rlhf_trl_ext.stages.named_content import Reading
from rlhf_trl_ext.stages.sources import source

PACKAGES = ("torch", "trl", "transformers", "datasets", "accelerate", "peft", "deepspeed", "tokenizers")


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
        reading = Reading().of(settings)
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
    reading = Reading().of(node)
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
