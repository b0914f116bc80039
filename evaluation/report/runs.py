"""Results on disk, of a benchmark, a pipeline or a folder of pipelines, in one form: that of a benchmark."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from evaluation.comparison.results import Found, benchmark_results
from evaluation.verdicts.comparison import chosen_pairs, judged, read_samples
from rlhf_trl_ext.judging.judge import ScoreJudge, Verdict
from rlhf_trl_ext.stages.pipeline import SAMPLES

SCORES = ("gold_reward", "reward")


@dataclass
class Runs:
    """results: as benchmark.json has them. found: the pipelines they are of, without verdicts. folder: where they are.

    algorithms, metrics: what is shown; empty: everything.
    """

    folder: Path
    results: dict
    found: list[Found]
    algorithms: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        """Algorithms that are shown, the A/A row last."""
        again = self.results.get("again") or []
        known = [*self.results["algorithms"], *again[1:]]
        return [row for row in known if not self.algorithms or row in self.algorithms]

    def shows(self, metric: str) -> bool:
        """Whether a metric is shown."""
        return not self.metrics or metric in self.metrics

    def of(self, dataset: str) -> list[Found]:
        """The pipelines of one data set that have results."""
        return [run for run in self.found if run.dataset == dataset and run.results]


def read(folder: str | Path, algorithms: list[str] | None = None, metrics: list[str] | None = None) -> Runs:
    """Results in a folder that holds benchmark.json, results.json, or folders with a results.json each.

    algorithms, metrics: the only ones to show. Raises ValueError when there is nothing, or no such algorithm or metric.
    """
    folder = Path(folder)
    if (folder / "benchmark.json").exists():
        results = json.loads((folder / "benchmark.json").read_text())
        names = dict.fromkeys(cell["folder"] for cell in results["cells"])
        found = [_found(folder / name) for name in names if (folder / name / "results.json").exists()]
        for run in found:
            run.dataset = next(cell["dataset"] for cell in results["cells"] if cell["folder"] == run.folder.name)
    else:
        places = (
            [folder] if (folder / "results.json").exists() else sorted(p.parent for p in folder.glob("*/results.json"))
        )
        if not places:
            raise ValueError(
                f"{folder} holds neither benchmark.json nor results.json, nor do its folders: "
                "write one with `python -m launchers.benchmark` or `python -m launchers.pipeline`."
            )
        found = [_judged(_found(place)) for place in places]
        _name_apart(found)
        results = benchmark_results(_header(folder, found), found, _policies(found), None)
    runs = Runs(folder, results, found, algorithms or [], metrics or [])
    _check("algorithms", runs.algorithms, [*results["algorithms"], *(results.get("again") or [])[1:]])
    _check("metrics", runs.metrics, ["win_rate", "length_controlled_win_rate", *SCORES, "kl"])
    return runs


def _check(key: str, given: list[str], allowed: list[str]) -> None:
    for name in given:
        if name not in allowed:
            raise ValueError(f"{key}={name}: allowed are {', '.join(allowed)}.")


def _found(folder: Path) -> Found:
    """A pipeline's folder, with its samples and without verdicts."""
    results = json.loads((folder / "results.json").read_text())
    found = Found(_dataset(folder, results), results.get("seed", 0), folder, results["stages"], {}, results=results)
    for name in (results["baseline"], *results["policies"]):
        found.samples[name] = read_samples(folder / f"{SAMPLES}{name}" / "samples.jsonl")
    return found


def _dataset(folder: Path, results: dict) -> str:
    """The data set's name, from the configuration of the sampling stage."""
    path = folder / f"{SAMPLES}{results['baseline']}" / "config.yaml"
    dataset = yaml.safe_load(path.read_text())["dataset"] if path.exists() else {}
    target = (dataset.get("convert") or dataset).get("_target_", "data")
    return target.split(".")[-2] if "." in target else target


def _judged(found: Found) -> Found:
    """Verdicts again, without asking a judge: a score's from the samples, any other's from what results.json kept."""
    results = found.results
    field = results["judge"] if results["judge"] in SCORES else None
    if field or not all("outcomes" in row for row in results["policies"].values()):
        pairs = chosen_pairs("all", results["baseline"], list(results["policies"]))
        found.verdicts = judged(ScoreJudge(field), found.samples, pairs)
    else:
        told = {name: row["outcomes"] for name, row in results["policies"].items()}
        found.verdicts = {(name, results["baseline"]): [Verdict(o, o) for o in own] for name, own in told.items()}
    return found


def _name_apart(found: list[Found]) -> None:
    """Pipelines of one data set and seed are different runs: each stands for itself, by its folder's name."""
    names = [(run.dataset, run.seed) for run in found]
    if len(set(names)) < len(names):
        for run in found:
            run.dataset = run.folder.name


def _policies(found: list[Found]) -> list[str]:
    return list(dict.fromkeys(name for run in found for name in run.results["policies"]))


def _header(folder: Path, found: list[Found]) -> dict:
    return {
        "name": folder.name,
        "algorithms": _policies(found),
        "again": None,
        "datasets": list(dict.fromkeys(run.dataset for run in found)),
        "seeds": sorted({run.seed for run in found}),
        "baseline": found[0].results["baseline"],
        "budget": {"in_words": "No common budget: every algorithm took the steps of its own configuration."},
    }
