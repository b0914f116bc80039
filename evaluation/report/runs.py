"""Results on disk, of a benchmark, a pipeline or a folder of pipelines, in one form: that of a benchmark."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.comparison.results import benchmark_results
from evaluation.comparison.run import Run, read_run
from evaluation.report.settings import names_apart
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
    folder: str | Path | Sequence[str | Path],
    algorithms: list[str] | None = None,
    metrics: list[str] | None = None,
    key: str = "folder",
) -> Runs:
    """Results in a folder that holds benchmark.json, results.json, folders with a results.json each, or a sweep's jobs.

    folder: or several, of pipelines. algorithms, metrics: the only ones to show. key: the setting that names the
    folder, for messages. Raises ValueError when there is nothing, or no such algorithm or metric.
    """
    folders, problems = as_folders(folder), []
    first = folders[0]
    if len(folders) == 1 and (first / "benchmark.json").exists():
        results = _benchmark(first / "benchmark.json")
        datasets = {cell["folder"]: cell["dataset"] for cell in results["cells"]}
        runs = _read([first / name for name in datasets if (first / name / "results.json").exists()], problems)
        for run in runs:
            run.dataset = datasets[run.folder.name]
    else:
        runs = _read(dict.fromkeys(place for own in folders for place in _judged(own, key)), problems)
        if not runs:
            raise ValueError(" ".join(problems))
        _name_apart(runs)
        results = benchmark_results(_header(folders, runs), runs, _policies(runs), None)
    problems += [problem for run in runs for problem in run.problems]
    chosen = Runs(first, results, runs, algorithms or [], metrics or [], problems)
    _check("algorithms", chosen.algorithms, [*results["algorithms"], *(results.get("aa_control") or [])[1:]])
    _check("metrics", chosen.metrics, ["win_rate", "length_controlled_win_rate", *SCORES, "kl"])
    return chosen


def as_folders(folder: str | Path | Sequence[str | Path]) -> list[Path]:
    """One folder or several. Raises ValueError for none."""
    folders = [Path(own) for own in ([folder] if isinstance(folder, str | Path) else folder)]
    if not folders:
        raise ValueError("folder=[]: give one that holds results, or several.")
    return folders


def pipelines(folder: Path) -> list[Path]:
    """The pipelines with results in a folder: itself, those in it, or those that a sweep kept there has run."""
    places = [folder, *sorted(path.parent for path in folder.glob("*/results.json")), *jobs(folder)]
    places = [place for place in places if (place / "results.json").exists()]
    return places[:1] if places[:1] == [folder] else places


def jobs(folder: Path) -> list[Path]:
    """Where the jobs of a sweep by hydra/launcher=accelerate went; folder: the sweep's."""
    records = [(read_mark(path) or {}).get("record") for path in sorted(folder.glob("*/job.json"))]
    names = [record["folder"] for record in records if isinstance(record, dict) and record.get("folder")]
    beside = (folder.parent / "stages", folder.parent)
    tried = [[Path(name), *(place / Path(name).name for place in beside)] for name in names]
    return [place for own in tried if (place := next(filter(Path.is_dir, own), None))]


def _judged(folder: Path, key: str) -> list[Path]:
    if (folder / "benchmark.json").exists():
        raise ValueError(f"{key}={folder} is a benchmark: give it alone, and another one as compare=<folder>.")
    places = pipelines(folder)
    if not places:
        raise ValueError(
            f"{key}={folder} holds neither benchmark.json nor results.json, nor do its folders: "
            "write one with `python -m launchers.benchmark` or `python -m launchers.pipeline`."
        )
    return places


def _read(folders: Iterable[Path], problems: list[str]) -> list[Run]:
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
    """Name pipelines of the same data set and seed by the settings in which they differ, or by their folders."""
    names = [(run.dataset, run.seed) for run in runs]
    if len(set(names)) == len(names):
        return
    own = names_apart([[run.folder / name for name in run.results["policies"]] for run in runs])
    names = [f"{run.dataset} {words}" for run, words in zip(runs, own, strict=True)]
    for run, name in zip(runs, names, strict=True):
        run.dataset = name if len(set(names)) == len(names) else run.folder.name


def _policies(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.results["policies"]))


def _header(folders: list[Path], runs: list[Run]) -> dict:
    return {
        "name": ", ".join(folder.resolve().name for folder in folders),
        "algorithms": _policies(runs),
        "aa_control": None,
        "datasets": list(dict.fromkeys(run.dataset for run in runs)),
        "seeds": sorted({run.seed for run in runs}),
        "baseline": runs[0].results["baseline"],
        "budget": {"in_words": "No common budget: every algorithm took the steps of its own configuration."},
    }
