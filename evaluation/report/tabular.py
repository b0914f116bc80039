"""Tables of a report: means, differences, what was tuned, comparison with another run."""

from dataclasses import dataclass, field

import numpy as np

from evaluation.comparison.differences import compare
from evaluation.comparison.results import COMPARED, rule
from evaluation.comparison.run import CONTROLLED
from evaluation.report.runs import Runs

METRICS = {**COMPARED, CONTROLLED: "length-controlled win rate"}

SPENT = {"sampled_tokens": "sampled tokens", "steps": "steps", "train_seconds": "seconds", "peak_memory_mb": "peak MB"}


@dataclass
class Cell:
    """A table cell: text, interval in small print beside it; number: whether it is aligned as one; bad: red.

    pieces: of a longer text, each with whether it is marked; `text` then stands below them.
    """

    text: str
    interval: str = ""
    number: bool = False
    bad: bool = False
    pieces: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What a column of such cells is sorted by."""
        return self.text.replace(",", "") if self.number else self.text


@dataclass
class Table:
    """header: names of the columns; rows: of cells. kind: a class for its style."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    note: str = ""
    kind: str = field(default="")


def number(value: dict | float | None, form: str = ".3f") -> Cell:
    """A number, or a mean with its interval."""
    if value is None:
        return Cell("", number=True)
    if not isinstance(value, dict):
        return Cell(format(value, form), number=True)
    low, high = (format(end, form) for end in value["interval"])
    spread = "" if low == high else f"{low} to {high}"  # one number of one seed has no spread
    return Cell(format(value.get("mean", value.get("difference")), form), spread, number=True)


def means(runs: Runs, dataset: str) -> Table:
    """Every algorithm's metrics and costs, means over seeds."""
    summary = runs.results["by_dataset"][dataset]
    metrics = [metric for metric in METRICS if runs.shows(metric)]
    header = ["algorithm", *(METRICS[metric] for metric in metrics), *SPENT.values(), "flags"]
    rows = []
    for row in (row for row in runs.rows if row in summary["means"]):
        cells = [c for c in runs.results["cells"] if (c["dataset"], c["algorithm"]) == (dataset, row)]
        numbers = [number(summary["means"][row].get(metric)) for metric in metrics]
        if CONTROLLED in metrics:
            numbers[metrics.index(CONTROLLED)] = _controlled(summary["means"][row].get(CONTROLLED), cells)
        spent = [number(float(np.mean([cell[key] or 0 for cell in cells])), ",.0f") for key in SPENT]
        flags = ", ".join(sorted({flag for cell in cells for flag in cell["flags"]}))
        rows.append([Cell(row), *numbers, *spent, Cell(flags)])
    note = (
        f"Win rates against {runs.results['baseline']}, judged by {runs.results['judge']}. Means over "
        f"{len(runs.of(dataset))} seed(s) with 95 % intervals over seeds and prompts; KL in nats per completion."
    )
    if fair := summary.get("fair_judge"):
        note += f" Is this a fair judge? {fair}."
    return Table("Every number", header, rows, note)


def _controlled(mean: dict | None, cells: list[dict]) -> Cell:
    """The length-controlled win rate; of one seed with its own interval, which is over prompts."""
    if any(cell[CONTROLLED] is None and cell["win_rate"] is not None for cell in cells):
        return Cell("cannot be controlled")  # lengths do not overlap
    ends = cells[0].get("length_controlled_ci") if len(cells) == 1 else None
    return number({**mean, "interval": ends} if mean and ends else mean)


def overview(runs: Runs) -> Table:
    """Every policy of every data set, or of every pipeline of a sweep, in one table."""
    every = [(dataset, means(runs, dataset)) for dataset in filter(runs.of, runs.results["datasets"])]
    rows = [[Cell(dataset), *row] for dataset, table in every for row in table.rows]
    note = "A click on a column's name sorts by it. Seeds and intervals: as below, where each has its own part."
    return Table("Everything side by side", ["run", *every[0][1].header], rows, note)


def tuning(runs: Runs, dataset: str) -> Table | None:
    """What was tried for every algorithm on seeds of their own, and chosen; None where nothing was."""
    own = runs.results.get("tuning")
    if not own:
        return None
    rows = [
        [
            Cell(algorithm),
            Cell(", ".join(f"{name}={value:g}" for name, value in each["args"].items())),
            number(each[own["metric"]]),
            number(each["kl"]),
            Cell("chosen" if i == choice["chosen"] else ""),
        ]
        for algorithm, choice in own["by_dataset"][dataset].items()
        if algorithm in runs.rows
        for i, each in enumerate(choice["tries"])
    ]
    name = METRICS.get(own["metric"], own["metric"])
    note = f"{name} on seeds {', '.join(map(str, own['seeds']))}, which no other number here is of. "
    note += f"Chosen is {rule(own)}. "
    note += "Without a number: failed on one of them."
    return Table("Settings, as chosen beforehand", ["algorithm", "settings", name, "KL", ""], rows, note)


def differences(runs: Runs, dataset: str) -> Table | None:
    """Every two algorithms, metric by metric."""
    summary = runs.results["by_dataset"][dataset]
    control = [{**row, "a": row["a"], "aa_control": True} for row in summary["aa_control"]]
    differing = [row for row in [*summary["differences"], *control] if runs.shows(row["key"])]
    differing = [row for row in differing if row["a"] in runs.rows and row["b"] in runs.rows]
    if not differing:
        return None
    rows = [
        [
            Cell(f"{row['a']} - {row['b']}" + (" (A/A)" if row.get("aa_control") else "")),
            Cell(row["metric"]),
            number(row, "+.3f"),
            number(row["p_holm"], ".2g"),
            Cell(_verdict(row)),
        ]
        for row in differing
    ]
    note = "p is adjusted for all pairs of a metric, that of A/A for all metrics (Holm); below 0.05 two are told apart."
    return Table("Differences", ["pair", "metric", "difference", "p", "in words"], rows, note)


def _verdict(row: dict) -> str:
    if not row["distinguishable"]:
        return "not distinguishable"
    return f"{row['a']} is {'higher' if row['difference'] > 0 else 'lower'}"


def comparison(runs: Runs, other: Runs, dataset: str) -> Table | None:
    """The same algorithms in two runs: first minus second, metric by metric, on the seeds that both have."""
    pairs = [(a, b) for a in runs.of(dataset) for b in other.of(dataset) if a.seed == b.seed]
    rows = []
    for name in runs.rows:
        if not pairs or any(name not in run.results["policies"] for pair in pairs for run in pair):
            continue
        for metric in (metric for metric in METRICS if runs.shows(metric)):
            keys = {"here": [a.per_prompt(name, metric) for a, _ in pairs]}
            keys["there"] = [b.per_prompt(name, metric) for _, b in pairs]
            if any(np.isnan(own).all() for scores in keys.values() for own in scores):
                continue
            sizes = [{len(a), len(b)} for a, b in zip(keys["here"], keys["there"], strict=True)]
            if any(len(size) > 1 for size in sizes) or (metric == "length_controlled_win_rate" and len(pairs) < 2):
                continue
            (difference,) = compare(keys, [("here", "there")], METRICS[metric])
            verdict = {True: "distinguishable", False: "not distinguishable"}[difference["distinguishable"]]
            rows.append(
                [
                    Cell(name),
                    Cell(METRICS[metric]),
                    number(difference, "+.3f"),
                    number(difference["p"], ".2g"),
                    Cell(verdict),
                ]
            )
    note = f"{runs.results['name']} minus {other.results['name']}, on {len(pairs)} common seed(s); p is not adjusted."
    header = ["algorithm", "metric", "difference", "p", "in words"]
    return Table(f"Against {other.results['name']}", header, rows, note) if rows else None
