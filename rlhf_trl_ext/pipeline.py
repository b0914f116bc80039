"""A pipeline's stages in the order of their needs, side by side where they are independent.

Every stage runs in a process of its own, `python -m launchers.train --config-dir <folder> --config-name config`, which
anyone can repeat by hand; what it prints is in the stage's log.txt.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from rlhf_trl_ext import held_out
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.checks import ConfigError, build, check
from rlhf_trl_ext.stages import Stage

SHARED = ("seed", "output_root", "overwrite", "step_timeout", "hand_over", "dataset", "reward", "held_out", "model")
SHARED += ("args",)
SAMPLES, LABELS = "samples-", "labels"


class StageFailed(ConfigError):
    """A stage's process ended with an error; the message holds the end of its log."""


class Plan:
    """The stages that the policies of a pipeline need, and their execution.

    algorithm: name -> composed configuration of `conf/algorithm/<name>.yaml`.
    """

    def __init__(self, config: DictConfig, algorithm: Callable[[str], DictConfig]):
        self.config = config
        self.sampled = list(dict.fromkeys([config.baseline, *config.policies]))
        for name in config.stages:
            algorithm(name)  # a mistyped stage is told before anything runs
        self.configs: dict[str, DictConfig] = {}
        waiting = [*self.sampled, config.reward.stage]
        while waiting:
            name = waiting.pop(0)
            if name and name not in self.configs:
                self.configs[name] = self._labelling() if name == LABELS else self._training(algorithm(name))
                waiting += self.configs[name].needs
        for name in self.sampled:
            self.configs[SAMPLES + name] = self._sampling(name)
        self.jobs = config.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
        self.records: dict[str, dict] = {}
        self.folders: dict[str, Path] = {}

    def _training(self, algorithm: DictConfig) -> DictConfig:
        """A stage's configuration: what the stages share, the algorithm, the experiment's settings of this stage."""
        stage = OmegaConf.create({key: self.config[key] for key in SHARED if key in self.config})
        own = self.config.stages.get(algorithm.name) or {}
        config = OmegaConf.merge(stage, {"output_dir": None}, OmegaConf.to_container(algorithm), own)
        if config.view == "preferences" and "labeller" in self.config:
            config.needs = [*config.needs, LABELS]
        return config

    def _labelling(self) -> DictConfig:
        """The stage that labels pairs of the policies in `pairs.policies`, which are names of stages."""
        keys = (*SHARED, "labeller", "labelling", "pairs")
        stage = OmegaConf.create({key: self.config[key] for key in keys if key in self.config})
        return OmegaConf.merge(stage, {"name": LABELS, "output_dir": None, "needs": list(stage.pairs.policies)})

    def _sampling(self, policy: str) -> DictConfig:
        stage = OmegaConf.create({key: self.config[key] for key in (*SHARED, "samples") if key in self.config})
        needs = [*dict.fromkeys([policy, self.config.baseline, self.config.reward.stage])]
        return OmegaConf.merge(stage, {"name": SAMPLES + policy, "output_dir": None, "needs": needs})

    def check(self) -> None:
        """Check every stage's arguments before the first one starts. Raises ConfigError naming the stage."""
        for name, config in self.configs.items():
            try:
                for section in ("dataset", "model", "trainer", "labeller", "labelling"):
                    if section in config:
                        check(config[section], section)
                if "trainer" in config:
                    build(config.args, "args", output_dir="unused", **held_out.arguments(config))
            except ConfigError as error:
                raise ConfigError(f"stages.{name}.{error}") from error

    def execute(self) -> dict[str, dict]:
        """Run, resume or reuse every stage; returns their records by name.

        Independent stages run side by side (`jobs`). After a failure the stages under way are finished and StageFailed
        is raised with the end of the log; a second run takes up where this one ended.
        """
        waiting, running, failures = dict(self.configs), {}, []
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as progress, ThreadPoolExecutor(self.jobs) as pool:
            while waiting or running:
                ready = [name for name, config in waiting.items() if all(n in self.records for n in config.needs if n)]
                for name in ready[: 0 if failures else max(self.jobs - len(running), 0)]:
                    stage = Stage(self._with_needs(waiting.pop(name)))
                    bar = progress.add_task(name, total=1.0)
                    running[pool.submit(self._run, stage, progress, bar)] = (name, bar)
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name, bar = running.pop(future)
                    progress.remove_task(bar)
                    try:
                        self.records[name], how = future.result()
                        progress.console.print(
                            f"{name:<15} {how:<11} {self.folders[name]}", highlight=False, soft_wrap=True
                        )
                    except ConfigError as error:
                        failures.append(str(error))
        if waiting and not failures:
            raise ConfigError(f"stages {', '.join(waiting)} need each other: change their `needs`.")
        if failures:
            raise StageFailed("\n".join(failures))
        return self.records

    def _with_needs(self, config: DictConfig) -> DictConfig:
        """Put the folders of the needed stages where the configuration wants them."""
        config = config.copy()
        for need in filter(None, config.needs):
            if need in self.config.hand_over:
                OmegaConf.update(config, self.config.hand_over[need], str(self.folders[need]))
        if config.name == LABELS:
            config.pairs.policies = [str(self.folders[policy]) for policy in config.pairs.policies]
        if config.name.startswith(SAMPLES):
            config.policy = str(self.folders[config.name.removeprefix(SAMPLES)])
            config.reference = str(self.folders[self.config.baseline])
        return config

    def _run(self, stage: Stage, progress: Progress, bar: TaskID) -> tuple[dict, str]:
        self.folders[stage.name] = stage.folder
        if self.config.overwrite:
            shutil.rmtree(stage.folder, ignore_errors=True)
        if stage.result:
            return stage.result, "reused"
        begin = time.time()
        stage.begin()
        log = stage.folder / "log.txt"
        with log.open("a") as output:
            streams = {"stdout": output, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(self._command(stage), env=self._environment(), **streams)
            while process.poll() is None:
                progress.update(bar, completed=_share_done(stage.folder))
                time.sleep(0.3)
        if not process.returncode and Stage(stage.config).fingerprint != stage.fingerprint:
            raise StageFailed(
                f"stage {stage.name}: the project's code changed while it ran; run the same command again."
            )
        if process.returncode or stage.result is None:
            tail = "\n".join(line for line in log.read_text(errors="replace").splitlines()[-12:] if line.strip())
            raise StageFailed(f"stage {stage.name} failed (exit {process.returncode}); the end of {log}:\n{tail}")
        return stage.result, f"{time.time() - begin:.0f} s"

    def _command(self, stage: Stage) -> list[str]:
        launcher = "generate" if stage.name.startswith(SAMPLES) else "label" if stage.name == LABELS else "train"
        config = ["--config-dir", str(stage.folder), "--config-name", "config"]
        return [sys.executable, "-m", f"launchers.{launcher}", *config]

    def _environment(self) -> dict[str, str]:
        """Threads shared between the stages that run side by side, unless the caller decided."""
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        return {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", **os.environ}


def _share_done(folder: Path) -> float:
    """Share of a stage's steps, or of its samples, that is done; 0 while it starts."""
    metrics = folder / "metrics.jsonl"
    rows = read_metrics(metrics) if metrics.exists() else []
    return rows[-1]["step"] / max(rows[-1]["max_steps"], 1) if rows else 0.0


def link(folder: Path, folders: dict[str, Path]) -> None:
    """Make the stages of a pipeline reachable by name below its own folder."""
    for name, target in folders.items():
        name = folder / name
        if name.is_symlink() or not name.exists():
            name.unlink(missing_ok=True)
            name.symlink_to(os.path.relpath(target, folder))
