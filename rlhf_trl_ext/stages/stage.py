"""A stage: one configuration, one folder named by the fingerprint of everything that decides its result.

A folder holds config.yaml, versions.json, metrics.jsonl, checkpoints, the saved model and, once finished, stage.json.
"""

import contextlib
import json
import logging
import re
import time
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.overrides import KEPT
from rlhf_trl_ext.files import finite, read_mark, write
from rlhf_trl_ext.stages import files, kinds, replacement
from rlhf_trl_ext.stages.identity import declared, identify, versions

logger = logging.getLogger(__name__)
SHOWN = 4  # differences from another run in a message
# What may lie in a folder before its stage begins.
BEFORE = {".lock", "log.txt"}
BEGINNING = re.compile(r"(versions\.json|config\.yaml)\.\d+\.partial$")


class Stage:
    """Folder and state of one stage. processes: that run it; None: those that run now."""

    def __init__(self, config: DictConfig, processes: int | None = None):
        self.config, self.processes = config, processes
        self.name, self.kind = config.name, kinds.kind_of(config)
        self.identity = identify(config, processes)
        self.fingerprint = self.identity.fingerprint
        default = Path(config.output_root) / "stages" / f"{self.name}-{self.fingerprint}"
        self.folder = Path(config.output_dir).expanduser() if config.output_dir else default
        self.overwrites = config.get("overwrite") is True  # until it has begun

    @property
    def result(self) -> dict | None:
        """What the finished stage recorded, or None; None as well for what `overwrite=true` will replace.

        Raises ConfigError when the folder holds another run, finished or not, or files of nobody's, and when files of
        the result are missing or damaged.
        """
        if self.overwrites:
            replacement.check_replaceable(self.folder, BEFORE)
            return None
        self._check_owner()
        path = self.folder / "stage.json"
        if not path.exists():
            return None
        result = read_mark(path, ("name", "fingerprint"))
        if result is None:
            logger.warning("%s cannot be read: the stage is not finished, and goes on from its last checkpoint.", path)
            return None
        if wrong := files.damage(self.folder, result.pop("files", {})):
            raise ConfigError(
                f"{self.folder}: {wrong} since the stage finished; move the folder away and run again to make it anew."
            )
        return result

    def begin(self) -> None:
        """Write versions and the resolved configuration, which `launchers.<kind> --config-dir <folder>` runs again.

        What `overwrite=true` replaces is moved aside before, and deleted by `finish`.
        """
        if self.overwrites:
            self.overwrites = False
            replacement.set_aside(self.folder)
        else:
            self._check_owner()
        record = {"fingerprint": self.fingerprint, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **versions()}
        write(self.folder / "versions.json", json.dumps({**record, "identity": self.identity.record}, indent=2))
        resolved = OmegaConf.to_container(self.config, resolve=True)
        resolved.update(output_dir=str(self.folder), stages={}, overwrite=False)
        resolved.pop(KEPT, None)
        text = OmegaConf.to_yaml({"defaults": ["hydra_settings", "_self_"]} | resolved)
        write(self.folder / "config.yaml", text)

    def finish(self, record: dict) -> dict:
        """Record the result, and which files hold it, so that a stage is finished wholly or not at all."""
        record = {"name": self.name, "fingerprint": self.fingerprint, **record}
        results = {file for pattern in self.kind.results for file in self.folder.glob(pattern) if file.is_file()}
        results = files.record(self.folder, {file for file in results if file.name not in kinds.ABOUT})
        write(self.folder / "stage.json", json.dumps(finite({**record, "files": results}), indent=2, allow_nan=False))
        replacement.discard(self.folder)
        return record

    def _check_owner(self) -> None:
        """Raises ConfigError when the folder holds anything but this stage."""
        recorded = read_mark(self.folder / "versions.json", ("fingerprint",))
        if not (self.folder / "versions.json").exists():
            # A pipeline beside this one may be writing its beginning, which is the same.
            foreign = sorted(p.name for p in self.folder.glob("*") if not (p.name in BEFORE or BEGINNING.match(p.name)))
            if foreign and not (self.folder / "versions.json").exists():
                raise ConfigError(
                    f"output_dir={self.folder} holds files that no run of this project wrote there "
                    f"({', '.join(foreign[:3])}): give an empty folder, or none."
                )
            return
        if recorded is None:
            raise ConfigError(f"{self.folder}/versions.json cannot be read: move the folder away.")
        if recorded.get("fingerprint") != self.fingerprint:
            raise ConfigError(
                f"output_dir={self.folder} holds another run ({self._difference(recorded)}): give another output_dir, "
                "or none, which gives every configuration a folder of its own."
            )

    def _difference(self, recorded: dict) -> str:
        """In what the run that the folder holds differs from this one."""
        with contextlib.suppress(OSError, yaml.YAMLError, KeyError, TypeError):
            config = yaml.safe_load((self.folder / "config.yaml").read_text())
            differences = self.identity.differences(recorded["identity"], declared(self.kind, config))
            if differences:
                more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
                return "it differs in " + ", ".join(differences[:SHOWN]) + more
        return f"{recorded.get('fingerprint')}, not {self.fingerprint}"


@contextlib.contextmanager
def exclusive(folder: Path, wait: bool = True):
    """One run at a time in a folder: the main process holds a lock, the others wait for it.

    wait: for a run that holds it, else ConfigError is raised.
    """
    from accelerate import PartialState

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    if PartialState().is_main_process:
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise ConfigError(f"{folder} is in use by another run: let it finish, or end it first.") from None
    PartialState().wait_for_everyone()
    try:
        yield
    finally:
        lock.release()
