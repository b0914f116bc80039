"""A stage: one configuration, one folder named by the fingerprint of everything that decides its result.

A folder holds config.yaml, versions.json, metrics.jsonl, checkpoints, the saved model and, once finished, stage.json.
"""

import ast
import contextlib
import hashlib
import json
import os
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError, as_json

OWN = ("rlhf_trl_ext.", "evaluation.")
PACKAGES = ("torch", "trl", "transformers", "datasets", "accelerate", "peft", "deepspeed", "tokenizers")
# What decides a stage's result; where it goes, and how it is reported, does not.
TRAINING = ("name", "seed", "view", "trainer", "args", "evaluate", "held_out", "budget", "model", "dataset")
TRAINING += ("callbacks", "monitor")
SAMPLING = ("name", "seed", "policy", "reference", "samples", "args", "model", "dataset", "reward")
LABELLING = ("name", "seed", "pairs", "labeller", "reviser", "labelling", "args", "model", "dataset")
# Of a client: how fast it asks, what it may spend and where it keeps the answers.
ASKING = {"record", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "attempts", "budget_usd"}
ASKING |= {"budget_tokens", "prices", "key_variable"}


def versions() -> dict[str, str]:
    """Installed versions of the packages that training runs on, and this project's git commit ("" outside git)."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {**found, "git_commit": git.stdout.strip()}


def digest(node) -> str:
    """SHA-256 (16 hex digits) of plain data, the code that its `_target_`s name, and the local files that it names."""
    code = source(*_targets(node))
    files = {text: identity for text in _strings(node) if (identity := _folder_identity(text))}
    return hashlib.sha256(as_json([node, code, files]).encode()).hexdigest()[:16]


def built_folder(config: DictConfig) -> Path:
    """Where a model that is made from code is kept."""
    build = OmegaConf.to_container(config.model, resolve=True).get("build")
    return Path(config.output_root) / "models" / digest(build)


def fingerprint(config: DictConfig, processes: int | None = None) -> str:
    """SHA-256 (16 hex digits) of configuration, data, models, code, package versions and number of processes.

    processes: that will run it; None: those that run now.
    """
    resolved = _without(OmegaConf.to_container(config, resolve=True), ASKING)
    keys, code = (
        (SAMPLING, "rlhf_trl_ext.stages.generate") if "policy" in resolved else (TRAINING, "rlhf_trl_ext.stages.train")
    )
    if "pairs" in resolved and "trainer" not in resolved:
        keys, code = LABELLING, "rlhf_trl_ext.stages.label"
    if not (resolved.get("monitor") or {}).get("action"):
        resolved["monitor"] = None  # it only looks on
    decides = {key: resolved.get(key) for key in keys}
    args = decides["args"] or {}
    for incidental in ("report_to", "run_name", "logging_dir", "disable_tqdm"):
        args.pop(incidental, None)
    packages = {name: number for name, number in versions().items() if name != "git_commit"}
    return digest([decides, source(code), packages, str(processes or os.environ.get("WORLD_SIZE", 1))])


class Stage:
    """Folder and state of one stage. processes: that run it; None: those that run now."""

    def __init__(self, config: DictConfig, processes: int | None = None):
        self.config, self.processes = config, processes
        self.name = config.name
        self.fingerprint = fingerprint(config, processes)
        default = Path(config.output_root) / "stages" / f"{self.name}-{self.fingerprint}"
        self.folder = Path(config.output_dir) if config.output_dir else default

    @property
    def result(self) -> dict | None:
        """What the finished stage recorded, or None. Raises ConfigError when the folder holds another run."""
        path = self.folder / "stage.json"
        if not path.exists():
            return None
        result = json.loads(path.read_text())
        if result["fingerprint"] != self.fingerprint:
            raise ConfigError(
                f"output_dir={self.folder} holds another run ({result['fingerprint']}, not {self.fingerprint}): "
                "choose another folder, or overwrite=true to replace it."
            )
        return result

    def begin(self) -> None:
        """Write the resolved configuration, which `launchers.train --config-dir <folder>` runs again, and versions."""
        self.folder.mkdir(parents=True, exist_ok=True)
        resolved = OmegaConf.to_container(self.config, resolve=True)
        resolved.update(output_dir=str(self.folder), stages={}, overwrite=False)
        text = OmegaConf.to_yaml({"defaults": ["hydra_settings", "_self_"]} | resolved)
        (self.folder / "config.yaml").write_text(text)
        record = {"fingerprint": self.fingerprint, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **versions()}
        (self.folder / "versions.json").write_text(json.dumps(record, indent=2))

    def finish(self, record: dict) -> dict:
        """Record the result; written aside and renamed, so that a stage is finished wholly or not at all."""
        record = {"name": self.name, "fingerprint": self.fingerprint, **record}
        partial = self.folder / "stage.json.partial"
        partial.write_text(json.dumps(record, indent=2))
        os.replace(partial, self.folder / "stage.json")
        return record


@contextlib.contextmanager
def exclusive(folder: Path):
    """One run at a time in a folder: the main process holds a lock, the others wait for it."""
    from accelerate import PartialState

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    if PartialState().is_main_process:
        lock.acquire()
    PartialState().wait_for_everyone()
    try:
        yield
    finally:
        lock.release()


def _targets(node) -> set[str]:
    """Modules of this project that a configuration names by `_target_`."""
    if isinstance(node, list):
        return set().union(*map(_targets, node))
    if not isinstance(node, dict):
        return set()
    own = node.get("_target_", "")
    found = set().union(*map(_targets, node.values()))
    return found | {own.rpartition(".")[0]} if own.startswith(OWN) else found


def source(*modules: str) -> dict[str, str]:
    """Hashes of modules of this project and of all that they import from it, by name."""
    found, waiting = {}, list(modules)
    while waiting:
        module = waiting.pop()
        path = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
        if not module.startswith(OWN) or module in found or not path.exists():
            continue
        text = path.read_bytes()
        found[module] = hashlib.sha256(text).hexdigest()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [name.name for name in node.names]
    return found


def _without(node, keys: set[str]):
    """A configuration without some keys, at any depth."""
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(item, keys) for item in node] if isinstance(node, list) else node


def _strings(node) -> set[str]:
    if isinstance(node, str):
        return {node}
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return set().union(*map(_strings, children))


def _folder_identity(text: str):
    """What is in a local file or folder, by relative name; "" for any other string.

    Files are known by their contents, those above 64 MiB by size and time. A stage's own folder is known by its
    fingerprint, so that moving a model does not retrain what stands on it.
    """
    path = Path(text)
    if len(text) > 400 or "/" not in text or not path.exists():
        return ""
    if (path / "stage.json").exists():
        return json.loads((path / "stage.json").read_text())["fingerprint"]
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [(str(file.relative_to(path)), _file_identity(file)) for file in files]


def _file_identity(file: Path) -> str:
    stat = file.stat()
    if stat.st_size > 2**26:
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(file.read_bytes()).hexdigest()
