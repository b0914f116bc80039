"""The cells of the benchmark, run side by side; the rates of every algorithm are chosen on seeds of their own."""

import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluation.comparison.landscapes.cell import QUIET, Cell
from evaluation.comparison.landscapes.summary import mean_reward, summarise
from rlhf_trl_ext.configuration.checks import ConfigError, build, check
from rlhf_trl_ext.configuration.overrides import last_word
from rlhf_trl_ext.files import read_mark, write
from rlhf_trl_ext.stages.processes import Processes

EXTENSIONS = 2  # learning rates tried beyond either end of the grid
Row = tuple[str, str]  # landscape, algorithm
Rates = tuple[float, float]  # the policy's learning rate, and a factor of the critic's own


class Benchmark:
    """algorithm: name -> composed configuration of `conf/algorithm/<name>.yaml`. Raises ConfigError for wrong names."""

    def __init__(self, config: DictConfig, algorithm: Callable[[str], DictConfig]):
        self.config = config = OmegaConf.create(OmegaConf.to_container(config, resolve=True))  # open to other keys
        self.folder = Path(config.output_dir or Path(config.output_root) / "landscapes")
        for name in config.landscapes:
            if name not in config.tasks:
                raise ConfigError(f"landscapes={name}: allowed are {', '.join(config.tasks)}.")
        if chosen_on := sorted(set(config.seeds) & set(config.selection_seeds)):
            raise ConfigError(
                f"selection_seeds={list(config.selection_seeds)}: the learning rate would be chosen on seeds that are "
                f"reported ({', '.join(map(str, chosen_on))} of seeds); give others."
            )
        self.algorithms = {name: self._algorithm(name, algorithm) for name in config.algorithms}
        self.processes = config.processes or os.cpu_count() or 1

    def _algorithm(self, name: str, algorithm: Callable[[str], DictConfig]) -> dict:
        """Trainer and args of a row: the algorithm's own configuration, what all share, what the row sets."""
        own = OmegaConf.to_container(self.config.settings.get(name) or OmegaConf.create({}))
        base = OmegaConf.to_container(algorithm(own.get("algorithm", name)))
        batch = self.config.batch
        shape = {
            "per_device_train_batch_size": batch.questions * batch.completions,
            "num_generations": batch.completions,
            "steps_per_generation": 1,
            "max_completion_length": self.config.task.length,
        }
        blank = {"seed": None, "reward": {"path": None, "functions": None, "stage": None}}
        args = {"args": {**OmegaConf.to_container(self.config.args), **shape}}
        whole = OmegaConf.merge(blank, base, args, {"args": own.get("args", {})})
        last_word(whole, self.config, [name], section="settings")
        return {key: OmegaConf.to_container(whole, resolve=True)[key] for key in ("trainer", "args")}

    def check(self) -> None:
        """Check what every row sets, before anything is trained. Raises ConfigError."""
        for landscape, algorithm in itertools.product(self.config.landscapes, self.algorithms):
            settings = OmegaConf.create(self.cell(landscape, algorithm, (1e-3, 1.0), 0).settings)
            build(settings.task, f"tasks.{landscape}")
            check(settings.trainer, f"settings.{algorithm}.trainer")
            self._critic_rate(algorithm, 1e-3)

    def _meant(self, landscape: str, algorithm: str) -> bool:
        """Whether a row is meant for a landscape: `settings.<row>.landscapes`, by default all."""
        return landscape in (self.config.settings.get(algorithm) or {}).get("landscapes", [landscape])

    def _critic_rate(self, algorithm: str, rate: float) -> float | None:
        """A row's own critic_learning_rate where the policy's is `rate`; None without a critic."""
        args = OmegaConf.merge(self.algorithms[algorithm]["args"], QUIET, {"learning_rate": rate, "seed": 0})
        built = build(args, f"settings.{algorithm}.args", output_dir="unused")
        return getattr(built, "critic_learning_rate", None)

    def cell(self, landscape: str, algorithm: str, rates: Rates, seed: int) -> Cell:
        """One training run, by everything that decides its result."""
        chosen, (rate, factor) = self.algorithms[algorithm], rates
        critic = {} if factor == 1 else {"critic_learning_rate": factor * self._critic_rate(algorithm, rate)}
        settings = {
            "task": OmegaConf.to_container(OmegaConf.merge(self.config.task, self.config.tasks[landscape])),
            "policy": OmegaConf.to_container(self.config.policy),
            "iterations": self.config.iterations[landscape],
            "trainer": chosen["trainer"],
            "args": {**chosen["args"], "learning_rate": rate, **critic, "seed": seed},
        }
        return Cell((landscape, algorithm, rate, factor, seed), settings)

    def run(self) -> dict:
        """Train what is not there yet, and summarise: `summary.summarise`'s result.

        With one rate and no factors of the critic's there is nothing to choose, and no selection seed is run.
        """
        rows = [row for row in itertools.product(self.config.landscapes, self.algorithms) if self._meant(*row)]
        tried: dict[Row, dict[Rates, float]] = {row: {} for row in rows}
        only = (self.config.learning_rates[0], 1.0)
        is_chosen = len(self.config.learning_rates) > 1 or self.config.critic_factors
        waiting = {row: [(rate, 1.0) for rate in self.config.learning_rates] for row in rows if is_chosen}
        while waiting:
            self._try(waiting, tried)
            further = {row: self._beyond({rate: score for (rate, _), score in tried[row].items()}) for row in waiting}
            waiting = {row: [(rate, 1.0)] for row, rate in further.items() if rate}
        best = {row: max(scores, key=scores.get, default=only)[0] for row, scores in tried.items()}
        critics = [row for row in rows if self._critic_rate(row[1], best[row])]
        self._try({row: [(best[row], factor) for factor in self.config.critic_factors] for row in critics}, tried)
        chosen = {row: max(scores, key=scores.get, default=only) for row, scores in tried.items()}
        results = self._results((*row, chosen[row], seed) for row in rows for seed in self.config.seeds)
        runs = {row: [results[*row, chosen[row], seed] for seed in self.config.seeds] for row in rows}
        return summarise(runs, chosen, tried)

    def _try(self, rates: dict[Row, list[Rates]], tried: dict[Row, dict[Rates, float]]) -> None:
        """Add the mean reward over training on the selection seeds of every row's rates to what was tried."""
        seeds = self.config.selection_seeds
        results = self._results((*row, each, seed) for row, own in rates.items() for each in own for seed in seeds)
        for row, own in rates.items():
            tried[row] |= {each: mean_reward([results[*row, each, seed] for seed in seeds]) for each in own}

    def _beyond(self, tried: dict[float, float]) -> float | None:
        """The next rate where the best is at an end of what was tried, unless the grid was extended often enough."""
        best, grid = max(tried, key=tried.get), self.config.learning_rates
        if min(tried) < best < max(tried) or len(grid) == 1:
            return None
        up = best == max(tried)
        outside = [rate for rate in tried if (rate > max(grid) if up else rate < min(grid))]
        step = round(2 * math.log10(best)) + (1 if up else -1)
        return None if len(outside) >= EXTENSIONS else float(f"{10 ** (step / 2):.0e}")

    def _results(self, keys: Iterable[tuple]) -> dict[tuple, dict]:
        """Results of cells by their names; those that are not in the folder yet are trained, one process a core."""
        cells = {names: self.cell(*names) for names in keys}
        folder = self.folder / "cells"
        folder.mkdir(parents=True, exist_ok=True)
        missing = [cell for cell in cells.values() if not read_mark(folder / cell.file)]
        if missing:
            self._train(missing, folder)
        return {names: json.loads((folder / cell.file).read_text()) for names, cell in cells.items()}

    def _train(self, cells: list[Cell], folder: Path) -> None:
        """Train cells in processes that each take the next one, as importing takes longer than many a cell.

        Raises ConfigError where one fails.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (
            Progress(*columns, TimeRemainingColumn(), transient=True) as progress,
            tempfile.TemporaryDirectory() as work,
        ):
            bar = progress.add_task("cells", total=len(cells))
            write(Path(work, "cells.json"), json.dumps([[cell.names, cell.settings] for cell in cells]))
            command = [sys.executable, "-m", "evaluation.comparison.landscapes.cell", work, str(folder)]

            def work_on(number: int) -> None:
                log = Path(work, f"log-{number}.txt")
                outcome = processes.run(command, log, environment, watch=watch)
                if outcome.code:
                    raise ConfigError(f"a cell failed (exit {outcome.code}): {outcome.error}")

            def watch() -> None:
                progress.update(bar, completed=sum((folder / cell.file).exists() for cell in cells))

            processes = Processes([None] * min(self.processes, len(cells)))
            processes.map(work_on, range(processes.count))
