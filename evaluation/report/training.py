"""Training logs side by side, by optimizer step: runs of this project and adopted ones of other frameworks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.report.curves import smooth
from evaluation.report.drawing import Palette, Picture, axes, legend
from evaluation.report.log_files import rows_after
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
    "rewards/margins": "reward margin (implicit reward)",
    "rewards/accuracies": "pairs ranked right (share)",
    "kl": "KL from the reference (nats)",
    "eval_loss": "held-out loss (of its own algorithm)",
}
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


def only_logs(folder: str | Path, alone: bool = False) -> bool:
    """Whether there is nothing judged in a folder, but runs with a log: adopted ones, or stages.

    alone: whether the folder may be one run itself.
    """
    place = Path(folder)
    judged = [*place.glob("benchmark.json"), *place.glob("results.json"), *place.glob("*/results.json")]
    return not judged and any(any(place.glob(pattern)) for pattern in DEPTHS[0 if alone else 1 :])


def read_logs(folders: list[str]) -> list[Log]:
    """The runs in folders, each a run's own or one of runs, at most two levels deep, under names that differ.

    Raises ValueError for a folder without a log.
    """
    logs: dict[Path, Log] = {}
    for folder in map(Path, folders):
        places = sorted({path.parent for pattern in DEPTHS for path in folder.glob(pattern)})
        if not places:
            raise ValueError(
                f"{folder} holds no {LOG}: give folders of runs; launchers.adopt makes them of other frameworks'."
            )
        for place in places:
            adopted = read_mark(place / "adopted.json", ("framework",)) or {}
            log = Log(place.name, place, str(adopted.get("framework", OWN)), rows_after(place / LOG, 0)[0])
            logs.setdefault(place.resolve(), log)
    names = [log.name for log in logs.values()]
    for log in logs.values():
        if names.count(log.name) > 1:
            log.name = f"{log.folder.parent.name}/{log.name}"
    return list(logs.values())


def table(logs: list[Log]) -> Table:
    """Steps and the last values of every metric that a run has logged."""
    metrics = [metric for metric in METRICS if any(log.curve(metric).size for log in logs)]
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
    """A panel for every metric with a curve, over optimizer steps."""
    metrics = [metric for metric in METRICS if any(log.curve(metric).shape[1] > 1 for log in logs)]
    if not metrics:
        return None
    palette = Palette([log.name for log in logs], None)
    figure, panels = axes(len(metrics), width=3.8)
    for one, metric in zip(panels, metrics, strict=True):
        for log in logs:
            steps, values = log.curve(metric)
            if len(steps) > 1:
                one.plot(steps, smooth(values, LAST), color=palette.colour(log.name), label=log.name)
        one.set(xlabel="step (optimizer steps)", ylabel=METRICS[metric])
    legend(figure, panels[0])
    caption = "Each over the last tenth of the run so far, as it was logged by who trained it."
    return Picture("training-logs", "Training logs", caption, figure)
