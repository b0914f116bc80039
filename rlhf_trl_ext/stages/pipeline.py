"""A pipeline's stages: their configurations and what they need of each other."""

import graphlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.callbacks import held_out
from rlhf_trl_ext.configuration.checks import ConfigError, build, check
from rlhf_trl_ext.configuration.overrides import last_word, overridden_stages
from rlhf_trl_ext.files import read_mark
from rlhf_trl_ext.stages import kinds
from rlhf_trl_ext.stages.execution import Execution, StageFailed
from rlhf_trl_ext.stages.needs import by_stage, claims, placed, read_keys, reward_needs
from rlhf_trl_ext.stages.stage import Stage

# Of the pipeline's keys, those that every stage has beside what its kind declares.
SHARED = ("seed", "shares", "trust", "output_root", "overwrite", "step_timeout", "reward", "profile")
SHARED += ("completion_length", "shown_rows")
# Of a stage's settings, those that are read here.
PLANNED = {"kind", "algorithm", "needs"}
# Of these a stage may set only keys that the pipeline has.
CLOSED = ("pairs", "samples", "reward", "held_out")
SAMPLES = "samples-"  # before a policy's name: the stage that samples it


class Pipeline:
    """The stages that the policies of a pipeline need, and their execution.

    algorithm: name -> composed configuration of `conf/algorithm/<name>.yaml`. `stages.<name>` holds a stage's settings:
    its `kind` (default train), its `algorithm` (default its name), its `needs`, and what differs from the pipeline's.
    `finished` names stages that need not run, with the folder or hub id of their model.
    processes: of every training stage; None: as many as this one has.
    Raises ConfigError for stages that are not there, needs that nobody meets or reads, and keys that no stage has.
    """

    def __init__(self, config: DictConfig, algorithm: Callable[[str], DictConfig], processes: int | None = None):
        self.config, self.algorithm, self.processes = config, algorithm, processes
        self.settings: dict[str, list[str]] = {}  # stage -> names below `stages` whose settings it has
        self.finished = dict(config.get("finished") or {})
        self.sampled = list(dict.fromkeys([config.baseline, *config.policies]))
        for name in config.stages:
            self._configured(name, f"stages.{name}")  # a mistyped stage is told before anything runs
        samples = {SAMPLES + name: self._sampling(name) for name in self.sampled}
        rewards = [(need, "reward.stage or reward.needs") for one in samples.values() for need in one.needs]
        self.configs = self._needed([*((name, "") for name in self.sampled), *rewards])
        if clash := sorted(samples.keys() & self.configs.keys()):
            raise ConfigError(f"stages.{clash[0]}: the samples of {clash[0].removeprefix(SAMPLES)} have this name.")
        self.configs |= samples
        for name in self.finished:
            if not any(name in one.needs for one in self.configs.values()):
                raise ConfigError(
                    f"finished.{name}: no stage of this pipeline needs it; it has {', '.join(self.configs)}."
                )
        self._check_order()
        for name, argument in overridden_stages(config).items():
            if not any(name in self.settings[stage] for stage in self.configs if stage not in samples):
                raise ConfigError(f"{argument}: this pipeline has no such stage; it has {', '.join(self.configs)}.")
        self.jobs = config.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
        self.records: dict[str, dict] = {name: _record(path) for name, path in self.finished.items()}
        self.folders: dict[str, Path] = {name: Path(path) for name, path in self.finished.items()}

    def _needed(self, waiting: list[tuple[str, str]]) -> dict[str, DictConfig]:
        """Configurations of these stages and of all that they need. waiting: names, each with the key that gives it."""
        configs: dict[str, DictConfig] = {}
        while waiting:
            name, user = waiting.pop(0)
            if name not in configs and name not in self.finished:
                configs[name] = self._configured(name, user)
                waiting += [(need, f"stages.{name}.needs.{need}") for need in configs[name].needs]
        return configs

    def _configured(self, name: str, user: str = "") -> DictConfig:
        """A stage's configuration: what the stages share, the algorithm, the experiment's settings, the command line.

        user: the key that names the stage, for messages.
        """
        own = self._own(name)
        kind = kinds.kind_of({"kind": own.get("kind", "train")})
        called = kinds.IN_PIPELINES.get(kind.name, {})
        roots = {key: called.get(key, key) for key in (*SHARED, *kind.settings)}
        shared = {key: self.config[root] for key, root in roots.items() if root in self.config}
        layers, names = [shared, {"output_dir": None}], [name]
        if kind.name == "train":
            algorithm = self._algorithm(own.get("algorithm", name), user)
            layers += [algorithm, self._own(algorithm["name"])]
            names.insert(0, algorithm["name"])
        layers.append(own)
        merged = OmegaConf.merge(*({k: v for k, v in layer.items() if k not in PLANNED} for layer in layers))
        merged.merge_with({"kind": kind.name, "name": name})
        self.settings[name] = names
        last_word(merged, self.config, names, without=called)
        self._check_keys(name, merged, own)
        merged.needs = self._needs(name, merged, [layer.get("needs") for layer in layers[2:]])
        return merged

    def _own(self, name: str) -> dict:
        """What the experiment and the command line set for one stage."""
        own = self.config.stages.get(name)
        if not (own is None or OmegaConf.is_dict(own)):
            raise ConfigError(f"stages.{name}={own}: give settings, such as stages.{name}.args.<name>=<value>.")
        return OmegaConf.to_container(own or OmegaConf.create())

    def _algorithm(self, name: str, user: str) -> dict:
        try:
            settings = OmegaConf.to_container(self.algorithm(name))
        except MissingConfigException as error:
            if not user:
                raise
            raise ConfigError(f"{user}: there is neither a stage nor an algorithm called {name}.") from error
        if "trainer" not in settings or "name" not in settings:
            raise ConfigError(
                f"algorithm={name}: its file has no trainer or no name at the root; "
                "begin it with `# @package _global_`."
            )
        return settings

    def _needs(self, name: str, config: DictConfig, layers: list) -> dict[str, list[str]]:
        """Stage -> keys; of two folders for one key, that of the later layer. The reward's where the stage reads it."""
        of_view = self.config.get("needs_of_view") or {}
        claimed = claims("needs_of_view", of_view.get(config.view) if "view" in config else None)
        for needs in layers:
            claimed |= claims(f"stages.{name}.needs", needs)
        if config.kind == "label":
            claimed |= {f"pairs.policies.{number}": policy for number, policy in enumerate(config.pairs.policies)}
        rewards = reward_needs(self.config.reward)
        read = read_keys(config, [*claimed, *rewards])
        for key, stage in claimed.items():
            if key not in read:
                reads = ", ".join(part for part in kinds.kind_of(config).settings if part in config)
                raise ConfigError(f"stages.{name}.needs.{stage}={key}: nothing reads {key} there; it reads {reads}.")
        return by_stage({**{key: stage for key, stage in rewards.items() if key in read}, **claimed})

    def _sampling(self, policy: str) -> DictConfig:
        kind = kinds.KINDS["generate"]
        stage = OmegaConf.create({key: self.config[key] for key in (*SHARED, *kind.settings) if key in self.config})
        own = {"kind": kind.name, "name": SAMPLES + policy, "output_dir": None, "policy": None, "reference": None}
        stage.merge_with(own)
        claimed = {"policy": policy, "reference": self.config.baseline, **reward_needs(self.config.reward)}
        stage.needs = by_stage(claimed)
        return stage

    def _check_keys(self, name: str, config: DictConfig, own: dict) -> None:
        """Raises ConfigError for settings of a stage that no stage of its kind reads."""
        allowed = {*PLANNED, *SHARED, *kinds.KINDS[config.kind].settings, "output_dir"}
        for key in own:
            if key not in allowed:
                raise ConfigError(f"stages.{name}.{key}: no such key; a stage has {', '.join(sorted(allowed))}.")
        for key in CLOSED:
            unknown = sorted((own.get(key) or {}).keys() - (self.config.get(key) or {}).keys())
            if unknown:
                known = ", ".join(self.config.get(key) or {})
                raise ConfigError(f"stages.{name}.{key}.{unknown[0]}: no such key; {key} has {known}.")

    def _check_order(self) -> None:
        needs = {name: list(config.needs) for name, config in self.configs.items()}
        try:
            graphlib.TopologicalSorter(needs).prepare()
        except graphlib.CycleError as error:
            names = ", ".join(error.args[1][1:])
            raise ConfigError(f"stages {names} need each other: change their `needs`.") from error

    def check(self) -> None:
        """Check every stage's arguments before the first one starts. Raises ConfigError naming the stage."""
        folders = {name: f"<folder of {name}>" for name in self.configs} | self.finished
        for name, config in self.configs.items():
            try:
                whole = placed(config, folders)
                for section in ("dataset", "model", "trainer", "judge", "labelling", "reviser"):
                    if section in whole:
                        check(whole[section], section)
                if "trainer" in whole:
                    build(whole.args, "args", output_dir="unused", **held_out.arguments(whole))
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
        return Stage(placed(self.configs[name], self.folders), processes)

    def launcher(self, name: str) -> str:
        """The launcher that runs a stage."""
        return self.configs[name].kind


def _record(path: str) -> dict:
    """The record of a stage that was finished elsewhere; of any other model, one without what it cost."""
    cost = dict.fromkeys(("sampled_tokens", "train_seconds", "peak_memory_mb"))
    return {**cost, **(read_mark(Path(path) / "stage.json") or {}), "folder": path}


def link(folder: Path, folders: dict[str, Path]) -> None:
    """Make the stages of a pipeline reachable by name below its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in folders.items():
        if not target.exists():  # a hub id
            continue
        name = folder / name
        if name.is_symlink() or not name.exists():
            name.unlink(missing_ok=True)
            name.symlink_to(os.path.relpath(target, folder))
