"""A pipeline's stages: their configurations and what they need of each other."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.callbacks import held_out
from rlhf_trl_ext.configuration.checks import ConfigError, build, check
from rlhf_trl_ext.stages.execution import Execution, StageFailed
from rlhf_trl_ext.stages.stage import Stage

SHARED = ("seed", "shares", "output_root", "overwrite", "step_timeout", "hand_over", "dataset", "reward", "held_out")
SHARED += ("model", "trust", "completion_length", "args", "callbacks", "monitor", "profile")
SAMPLES, LABELS = "samples-", "labels"


class Plan:
    """The stages that the policies of a pipeline need, and their execution.

    algorithm: name -> composed configuration of `conf/algorithm/<name>.yaml`. With `stages.<name>.algorithm` a stage of
    any name is that algorithm with its settings and, over them, those of `stages.<name>`.
    processes: of every training stage; None: as many as this one has.
    """

    def __init__(self, config: DictConfig, algorithm: Callable[[str], DictConfig], processes: int | None = None):
        self.config, self.algorithm, self.processes = config, algorithm, processes
        self.sampled = list(dict.fromkeys([config.baseline, *config.policies]))
        for name in config.stages:
            self._training(name)  # a mistyped stage is told before anything runs
        self.configs: dict[str, DictConfig] = {}
        waiting = [*self.sampled, *_names(config.reward.stage)]
        while waiting:
            name = waiting.pop(0)
            if name and name not in self.configs:
                self.configs[name] = self._labelling() if name == LABELS else self._training(name)
                waiting += self.configs[name].needs
        for name in self.sampled:
            self.configs[SAMPLES + name] = self._sampling(name)
        self.jobs = config.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
        self.records: dict[str, dict] = {}
        self.folders: dict[str, Path] = {}

    def _training(self, name: str) -> DictConfig:
        """A stage's configuration: what the stages share, the algorithm, the experiment's settings of this stage."""
        stage = OmegaConf.create({key: self.config[key] for key in SHARED if key in self.config})
        own = OmegaConf.to_container(self.config.stages.get(name) or OmegaConf.create())
        algorithm = self.algorithm(own.pop("algorithm", name))
        general = self.config.stages.get(algorithm.name) or {}
        config = OmegaConf.merge(
            stage,
            {"kind": "train", "output_dir": None},
            OmegaConf.to_container(algorithm),
            general,
            own,
            {"name": name},
        )
        config.needs = _names(OmegaConf.to_container(config.needs, resolve=True))
        if config.view == "preferences" and "labeller" in self.config:
            config.needs = [*config.needs, LABELS]
        return config

    def _labelling(self) -> DictConfig:
        """The stage that labels pairs of the policies in `pairs.policies`, which are names of stages."""
        keys = (*SHARED, "labelling", "pairs")
        stage = OmegaConf.create({key: self.config[key] for key in keys if key in self.config})
        stage.judge = self.config.labeller
        return OmegaConf.merge(
            stage, {"kind": "label", "name": LABELS, "output_dir": None, "needs": list(stage.pairs.policies)}
        )

    def _sampling(self, policy: str) -> DictConfig:
        stage = OmegaConf.create({key: self.config[key] for key in (*SHARED, "samples") if key in self.config})
        needs = _names([policy, self.config.baseline, self.config.reward.stage])
        return OmegaConf.merge(
            stage, {"kind": "generate", "name": SAMPLES + policy, "output_dir": None, "needs": needs}
        )

    def check(self) -> None:
        """Check every stage's arguments before the first one starts. Raises ConfigError naming the stage."""
        for name, config in self.configs.items():
            try:
                for section in ("dataset", "model", "trainer", "judge", "labelling"):
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
        failures = Execution({"": self}, [None] * self.jobs).run()
        if failures:
            raise StageFailed("\n".join(failures.values()))
        return self.records

    def stage(self, name: str) -> Stage:
        """The stage of this name, once those that it needs are finished."""
        processes = self.processes and (self.processes if self.launcher(name) == "train" else 1)
        return Stage(self._with_needs(self.configs[name]), processes)

    def launcher(self, name: str) -> str:
        """The launcher that runs a stage."""
        return self.configs[name].kind

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


def _names(needs) -> list[str]:
    """Names of stages, each once, out of a name, a list of such, or nothing."""
    if isinstance(needs, str):
        return [needs]
    return [*dict.fromkeys(name for need in needs or [] for name in _names(need))]


def link(folder: Path, folders: dict[str, Path]) -> None:
    """Make the stages of a pipeline reachable by name below its own folder."""
    for name, target in folders.items():
        name = folder / name
        if name.is_symlink() or not name.exists():
            name.unlink(missing_ok=True)
            name.symlink_to(os.path.relpath(target, folder))
