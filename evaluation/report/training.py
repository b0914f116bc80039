"""Training logs side by side, by optimizer step: runs of this project and adopted ones of other frameworks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.report.curves import band, smooth
from evaluation.report.drawing import Palette, Picture, axes, legend
from evaluation.report.log_files import rows_after
from evaluation.report.runs import Runs, jobs, pipelines
from evaluation.report.settings import names_apart, settings
from evaluation.report.tabular import Cell, Table, number
from rlhf_trl_ext.data.samples import finite_number
from rlhf_trl_ext.files import read_mark

LOG = "metrics.jsonl"
DEPTHS = (LOG, f"*/{LOG}", f"*/*/{LOG}")
OWN = "this project"
# TRL's name of a metric -> what it is, with its unit. Adoption writes those of other frameworks under the same names.
METRICS = {
    "loss": "loss (of its own algorithm)",
    "reward": "reward (its reward's units)",
    "rewards/margins": "reward margin (implicit)",
    "rewards/accuracies": "pairs ranked right (share)",
    "kl": "KL from the reference (nats)",
    "objective/kl": "KL of completions (nats)",
    "entropy": "entropy (nats per token)",
    "completions/mean_length": "completion length (tokens)",
    "eval_loss": "held-out loss (of its own algorithm)",
    "seconds": "wall time so far (seconds)",
}
TALLIES = ("seconds",)  # which only grow: their mean over the end says nothing
LAST = 0.1  # of a curve's points, whose mean a table shows


@dataclass
class Log:
    """A run's log. name: its folder's; framework: who trained it; rows: as in metrics.jsonl."""

    name: str
    folder: Path
    framework: str
    rows: list[dict]

    def curve(self, metric: str) -> np.ndarray:
        """Optimizer steps and values, `(2, N)`; empty where the metric was not logged."""
        pairs = [(finite_number(row.get("step")), finite_number(row.get(metric))) for row in self.rows]
        return np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2).T


def only_logs(folder: str | Path) -> bool:
    """Whether there is nothing judged in a folder, but runs with a log: adopted ones, stages, or one stage itself."""
    place = Path(folder)
    return not (place / "benchmark.json").exists() and not pipelines(place) and bool(_places(place))


def _places(folder: Path) -> list[Path]:
    """Runs with a log in a folder, at most two levels deep, and those of a sweep that is kept there."""
    logs = {path.parent for pattern in DEPTHS for path in folder.glob(pattern)}
    return sorted({*logs, *(place for place in jobs(folder) if (place / LOG).exists())})


def read_logs(folders: list[str | Path]) -> list[Log]:
    """The runs in folders, each a run's own or one of runs, at most two levels deep, under names that differ.

    Raises ValueError for a folder without a log.
    """
    logs: dict[Path, Log] = {}
    for folder in map(Path, folders):
        places = _places(folder)
        if not places:
            raise ValueError(
                f"{folder} holds no {LOG}: give folders of runs; launchers.adopt makes them of other frameworks'."
            )
        for place in places:
            logs.setdefault(place.resolve(), _log(place, settings(place).get("name") or place.name))
    _name_apart(list(logs.values()))
    return list(logs.values())


def _name_apart(logs: list[Log]) -> None:
    """Name runs of one name by the settings in which they differ, or by their folders."""
    by_name: dict[str, list[Log]] = {}
    for log in logs:
        by_name.setdefault(log.name, []).append(log)
    for name, own in by_name.items():
        apart = names_apart([[log.folder] for log in own]) if len(own) > 1 else [""]
        for log, words in zip(own, apart, strict=True):
            if len(own) > 1:
                log.name = f"{name} {words}" if len(set(apart)) == len(own) else log.folder.name
    names = [log.name for log in logs]
    for log in logs:
        if names.count(log.name) > 1:
            log.name = f"{log.folder.parent.name}/{log.name}"


def _log(place: Path, name: str) -> Log:
    adopted = read_mark(place / "adopted.json", ("framework",)) or {}
    return Log(name, place, str(adopted.get("framework", OWN)), rows_after(place / LOG, 0)[0])


def table(logs: list[Log]) -> Table:
    """Steps and the last values of every metric that a run has logged."""
    metrics = [metric for metric in METRICS if metric not in TALLIES and any(log.curve(metric).size for log in logs)]
    rows = []
    for log in logs:
        steps = max((finite_number(row.get("step")) or 0 for row in log.rows), default=0)
        values = [log.curve(metric)[1] for metric in metrics]
        ends = [number(float(smooth(own, LAST)[-1]) if own.size else None, ".4g") for own in values]
        rows.append([Cell(log.name), Cell(log.framework), number(steps, ",.0f"), *ends])
    note = (
        "Means over the last tenth of each log. Losses and rewards of different algorithms, data or reward models are "
        "of different units; which policy is better is told by samples that one judge has seen (launchers.generate, "
        "launchers.evaluate)."
    )
    return Table("Training logs", ["run", "trained by", "steps", *metrics], rows, note)


def picture(logs: list[Log]) -> Picture | None:
    """A panel for every metric with a curve, over optimizer steps, a line for every run."""
    caption = "Each over the last tenth of the run so far, as it was logged by who trained it."
    palette = Palette([log.name for log in logs], None)
    return _drawn({log.name: [log] for log in logs}, palette, "training-logs", "Training logs", caption)


def over_steps(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """The same of the policies of a pipeline or benchmark: means over seeds."""
    logs = {}
    for row in runs.rows:
        places = [run.folder / row for run in runs.of(dataset) if row in run.results["policies"]]
        logs[row] = [_log(place, row) for place in places if (place / LOG).exists()]
    caption = "Each over the last tenth of the run so far; a band goes from the lowest to the highest seed. Losses of "
    caption += "different algorithms are different quantities."
    return _drawn(logs, palette, f"{dataset}-training", "Training by step", caption)


def _drawn(logs: dict[str, list[Log]], palette: Palette, name: str, title: str, caption: str) -> Picture | None:
    known: dict[str, dict[str, list[np.ndarray]]] = {}
    for metric in METRICS:
        for row, own in logs.items():
            if curves := [curve for log in own if len(set((curve := log.curve(metric))[0])) > 1]:
                known.setdefault(metric, {})[row] = curves
    if not known:
        return None
    figure, panels = axes(len(known), width=3.4, height=2.6)
    for one, (metric, rows) in zip(panels, known.items(), strict=True):
        for row, curves in rows.items():
            band(one, curves, row, palette)
        one.set(xlabel="step (optimizer steps)", ylabel=METRICS[metric])
    legend(figure, *panels)
    return Picture(name, title, caption, figure)
