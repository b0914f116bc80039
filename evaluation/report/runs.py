"""Results on disk, of a benchmark, a pipeline or a folder of pipelines, in one form: that of a benchmark."""

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.comparison.results import benchmark_results
from evaluation.comparison.run import Run, read_run
from rlhf_trl_ext.files import read_mark

SCORES = ("gold_reward", "reward")


@dataclass
class Runs:
    """results: as benchmark.json has them. runs: the pipelines they are of. folder: where they are.

    algorithms, metrics: what is shown; empty: everything. problems: sentences on what could not be read.
    """

    folder: Path
    results: dict
    runs: list[Run]
    algorithms: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        """Algorithms that are shown, the A/A row last."""
        control = self.results.get("aa_control") or []
        known = [*self.results["algorithms"], *control[1:]]
        return [row for row in known if not self.algorithms or row in self.algorithms]

    def shows(self, metric: str) -> bool:
        """Whether a metric is shown."""
        return not self.metrics or metric in self.metrics

    def of(self, dataset: str) -> list[Run]:
        """The pipelines of one data set that have results."""
        return [run for run in self.runs if run.dataset == dataset and run.results]


def read(
    folder: str | Path, algorithms: list[str] | None = None, metrics: list[str] | None = None, key: str = "folder"
) -> Runs:
    """Results in a folder that holds benchmark.json, results.json, or folders with a results.json each.

    algorithms, metrics: the only ones to show. key: the setting that names the folder, for messages. Raises ValueError
    when there is nothing, or no such algorithm or metric.
    """
    folder, problems = Path(folder), []
    if (folder / "benchmark.json").exists():
        results = _benchmark(folder / "benchmark.json")
        datasets = {cell["folder"]: cell["dataset"] for cell in results["cells"]}
        runs = _read([folder / name for name in datasets if (folder / name / "results.json").exists()], problems)
        for run in runs:
            run.dataset = datasets[run.folder.name]
    else:
        places = [folder] if (folder / "results.json").exists() else [p.parent for p in folder.glob("*/results.json")]
        if not places and (folder / "metrics.jsonl").exists():
            raise ValueError(
                f"{key}={folder} is one stage, without samples and verdicts to report: give the folder of a pipeline "
                f"or a benchmark, or look at it with `python -m launchers.dashboard output_root={folder}`."
            )
        if not places:
            raise ValueError(
                f"{key}={folder} holds neither benchmark.json nor results.json, nor do its folders: "
                "write one with `python -m launchers.benchmark` or `python -m launchers.pipeline`."
            )
        runs = _read(sorted(places), problems)
        if not runs:
            raise ValueError(" ".join(problems))
        _name_apart(runs)
        results = benchmark_results(_header(folder, runs), runs, _policies(runs), None)
    problems += [problem for run in runs for problem in run.problems]
    chosen = Runs(folder, results, runs, algorithms or [], metrics or [], problems)
    _check("algorithms", chosen.algorithms, [*results["algorithms"], *(results.get("aa_control") or [])[1:]])
    _check("metrics", chosen.metrics, ["win_rate", "length_controlled_win_rate", *SCORES, "kl"])
    return chosen


def _read(folders: list[Path], problems: list[str]) -> list[Run]:
    """Pipelines that can be read; of the others a sentence is put into problems."""
    runs = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except (ValueError, KeyError, TypeError, OSError, AttributeError) as error:
            problems.append(f"{folder} cannot be read ({type(error).__name__}): {error}")
    return runs


def _benchmark(path: Path) -> dict:
    """benchmark.json. Raises ValueError when it is damaged."""
    results = read_mark(path, ("cells", "by_dataset", "algorithms", "datasets"))
    if results is None:
        raise ValueError(f"{path} is damaged: run `python -m launchers.benchmark` again; finished cells are reused.")
    return results


def _check(key: str, names: list[str], allowed: list[str]) -> None:
    for name in names:
        if name not in allowed:
            raise ValueError(f"{key}={name}: allowed are {', '.join(allowed)}.")


def _name_apart(runs: list[Run]) -> None:
    """Name pipelines of the same data set and seed by their folders, as they are different runs."""
    names = [(run.dataset, run.seed) for run in runs]
    if len(set(names)) < len(names):
        for run in runs:
            run.dataset = run.folder.name


def _policies(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.results["policies"]))


def _header(folder: Path, runs: list[Run]) -> dict:
    return {
        "name": folder.name,
        "algorithms": _policies(runs),
        "aa_control": None,
        "datasets": list(dict.fromkeys(run.dataset for run in runs)),
        "seeds": sorted({run.seed for run in runs}),
        "baseline": runs[0].results["baseline"],
        "budget": {"in_words": "No common budget: every algorithm took the steps of its own configuration."},
    }
