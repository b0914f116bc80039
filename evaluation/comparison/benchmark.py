"""The benchmark's cells, algorithm x data set x seed: one pipeline for every data set and seed, run together."""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from evaluation.comparison.budget import Budget
from evaluation.comparison.results import benchmark_results
from evaluation.comparison.run import Run, read_run
from evaluation.comparison.tuning import Tuning
from evaluation.files import write_json
from evaluation.verdicts.results import judge_of, summarise
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.execution import Execution
from rlhf_trl_ext.stages.pipeline import SAMPLES, Pipeline, link
from rlhf_trl_ext.stages.processes import accelerate_launch, gpu_places

AGAIN = "_again"
OTHER_SEED = 1000  # added to the training seed of the A/A row
OWN = (
    "algorithms",
    "datasets",
    "seeds",
    "budget",
    "aa_control",
    "threshold",
    "held_out_rewards",
    "settings",
    "num_processes",
    "tune",
)


class Benchmark:
    """compose: (group, name) -> composed configuration of `conf/<group>/<name>.yaml`. every_pair: whether every two
    algorithms are judged, or each against the baseline alone.

    Raises ConfigError for wrong names, arguments or budgets, before anything is trained.
    """

    def __init__(self, config: DictConfig, compose: Callable[[str, str], DictConfig], every_pair: bool = True):
        self.config, self.compose, self.every_pair = config, compose, every_pair
        OmegaConf.set_struct(config, False)
        self.folder = Path(config.output_dir or Path(config.output_root) / "benchmark")
        for key in ("algorithms", "datasets", "seeds"):
            if not config[key] or len(set(config[key])) < len(config[key]):
                raise ConfigError(f"{key}={list(config[key])}: name at least one, and none twice.")
        if config.aa_control is not None and config.aa_control not in config.algorithms:
            raise ConfigError(f"aa_control={config.aa_control}: allowed are null, {', '.join(config.algorithms)}.")
        if unknown := sorted(set(config.settings) - set(config.datasets)):
            raise ConfigError(f"settings.{unknown[0]}: allowed are {', '.join(config.datasets)}, as in datasets.")
        for dataset, settings in config.settings.items():
            if unknown := sorted(set(settings) - set(config)):
                raise ConfigError(
                    f"settings.{dataset}.{unknown[0]}: no such key; a pipeline's are given, as samples.*."
                )
        if isinstance(config.threshold, str) and config.threshold not in config.algorithms:
            config.threshold = None
        self.rows = [*config.algorithms, *([config.aa_control + AGAIN] if config.aa_control else [])]
        self.budget = Budget(**config.budget)
        self.names = [(dataset, seed) for dataset in config.datasets for seed in config.seeds]
        self.chosen: dict[str, dict[str, dict]] = {dataset: {} for dataset in config.datasets}
        self.pipelines = self._pipelines()
        tries = functools.partial(Benchmark, compose=compose, every_pair=False)
        self.tuning = Tuning(self, tries) if config.get("tune") else None

    def _pipelines(self) -> dict[str, Pipeline]:
        return {self._name(*names): self._pipeline(*names) for names in self.names}

    def _name(self, dataset: str, seed: int) -> str:
        return f"{dataset}-seed{seed}"

    def _pipeline(self, dataset: str, seed: int) -> Pipeline:
        """The pipeline of one data set and seed, each of its policies within the budget."""
        cell = OmegaConf.create({key: value for key, value in self._plain().items() if key not in OWN})
        reward_group = self.config.held_out_rewards.get(dataset)
        held_out = self._group("held_out", reward_group) if reward_group else None
        cell.held_out = held_out and OmegaConf.merge(held_out, cell.held_out or {})
        cell.dataset = self._group("dataset", dataset)
        cell.merge_with({"seed": seed, "policies": self.rows, "output_dir": None})
        cell.merge_with(self.config.settings.get(dataset) or {})
        for algorithm, choice in self.chosen[dataset].items():
            args = {"args": choice["tries"][choice["chosen"]]["args"]}
            cell.stages[algorithm] = OmegaConf.merge(cell.stages.get(algorithm) or {}, args)
        if self.config.aa_control:
            control = {"algorithm": self.config.aa_control, "args": {"seed": seed + OTHER_SEED}}
            cell.stages[self.config.aa_control + AGAIN] = control
        pipeline = Pipeline(cell, lambda name: self.compose("algorithm", name), self.config.num_processes)
        for row in self.rows:
            pipeline.configs[row] = self.budget.applied(pipeline.configs[row])
        return pipeline

    def _plain(self) -> dict:
        return OmegaConf.to_container(self.config)

    def _group(self, group: str, name: str) -> DictConfig:
        return OmegaConf.create(OmegaConf.to_container(self.compose(group, name)))

    def check(self) -> None:
        """Check every stage and the judge. Raises ConfigError."""
        for pipeline in self.pipelines.values():
            pipeline.check()
        judge_of(self.config)
        if self.tuning:
            self.tuning.benchmark.check()

    def run(self) -> dict:
        """Train, sample and judge what is not there yet; write and return the results.

        A failed cell does not stop the others. Everything finished is reused by a second run.
        """
        begin = time.time()
        if self.tuning:
            self.chosen = self.tuning.run()
            self.pipelines = self._pipelines()
        processes = self.config.num_processes
        jobs = self.config.jobs or max(1, (os.cpu_count() or 1) // processes)
        places = [place for place in gpu_places(processes, self.config.jobs) if place] or [None] * jobs
        command = (lambda module: accelerate_launch(module, processes)) if processes > 1 else None
        failures = Execution(self.pipelines, places, keep_going=True, command=command).run()
        runs = [self._judged(dataset, seed, failures) for dataset, seed in self.names]
        results = benchmark_results(self._header(), runs, self.rows, self.config.threshold, self.every_pair)
        results["seconds"] = round(time.time() - begin, 1)
        write_json(self.folder / "benchmark.json", results)
        return results

    def _judged(self, dataset: str, seed: int, failures: dict[tuple[str, str], str]) -> Run:
        """One pipeline's samples judged, policy against policy as well; its folder written as a pipeline's is."""
        name = self._name(dataset, seed)
        pipeline, folder = self.pipelines[name], self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        link(folder, pipeline.folders)
        reasons = {row: self._reason(name, row, failures) for row in (pipeline.config.baseline, *self.rows)}
        failed = {row: reason for row, reason in reasons.items() if reason}
        lost = {row: failed[row] for row in self.rows if row in failed}
        if pipeline.config.baseline in failed:
            return Run(dataset, seed, folder, pipeline.records, lost)
        pipeline.config.policies = [row for row in self.rows if row not in failed]
        results = summarise(pipeline.config, pipeline.records, folder, every_pair=self.every_pair)
        write_json(folder / "results.json", results)
        run = read_run(folder)
        run.dataset, run.failed = dataset, lost
        return run

    def _reason(self, pipeline: str, row: str, failures: dict[tuple[str, str], str]) -> str | None:
        """Why a policy could not be trained or sampled; None if it was."""
        return failures.get((pipeline, row)) or failures.get((pipeline, SAMPLES + row))

    def _header(self) -> dict:
        pipeline = next(iter(self.pipelines.values()))
        online = {row: pipeline.configs[row].view == "prompts" for row in self.rows}
        return {
            "name": self.folder.name,
            "algorithms": list(self.config.algorithms),
            "aa_control": self.config.aa_control and [self.config.aa_control, self.config.aa_control + AGAIN],
            "datasets": list(self.config.datasets),
            "seeds": list(self.config.seeds),
            "baseline": self.config.baseline,
            "tuning": self.tuning
            and {
                "seeds": list(self.config.tune.seeds),
                "metric": self.config.tune.metric,
                "within": self.tuning.within,
                "by_dataset": self.chosen,
                "common_kl": self.tuning.common_kl,
            },
            "budget": {**OmegaConf.to_container(self.config.budget), "in_words": self.budget.in_words(online)},
        }
