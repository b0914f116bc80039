"""Tables of a report: means, differences, judges, prompt injections, comparison with another run."""

from dataclasses import dataclass, field

import numpy as np

from evaluation.comparison.differences import compare, estimate
from evaluation.comparison.results import COMPARED
from evaluation.comparison.run import CONTROLLED
from evaluation.report.runs import Runs
from evaluation.verdicts.agreement import agreement
from evaluation.verdicts.pairwise import outcomes
from rlhf_trl_ext.judging.injection import not_measured

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
        if CONTROLLED in metrics and any(cell[CONTROLLED] is None and cell["win_rate"] is not None for cell in cells):
            numbers[metrics.index(CONTROLLED)] = Cell("cannot be controlled")  # lengths do not overlap
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
            Cell("chosen" if i == choice["chosen"] else ""),
        ]
        for algorithm, choice in own["by_dataset"][dataset].items()
        if algorithm in runs.rows
        for i, each in enumerate(choice["tries"])
    ]
    name = METRICS.get(own["metric"], own["metric"])
    note = f"{name} on seeds {', '.join(map(str, own['seeds']))}, which no other number here is of. "
    note += "Without a number: failed on one of them."
    return Table("Settings, as chosen beforehand", ["algorithm", "settings", name, ""], rows, note)


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


def by_judge(runs: Runs, dataset: str) -> Table | None:
    """Win rates by judges that judged later, and how far each agrees with the pipeline's own."""
    judges = dict.fromkeys(judge for run in runs.of(dataset) for judge in run.further)
    rows = []
    for judge in judges:
        own = [run for run in runs.of(dataset) if judge in run.further]
        for name in runs.rows:
            pair = (name, runs.results["baseline"])
            judged = [run for run in own if pair in run.further[judge]]
            values = [outcomes(run.further[judge][pair]) for run in judged]
            if not values or any(np.isnan(seed).all() for seed in values):
                continue
            unread = sum(int(np.isnan(seed).sum()) for seed in values)
            known = {judge: {(run.seed, *pair): run.further[judge][pair] for run in judged}}
            known["own"] = {(run.seed, *pair): run.verdicts[pair] for run in judged if pair in run.verdicts}
            match = next(iter(agreement(known)), {})
            cells = [number(match.get(key)) for key in ("agreement", "kappa")]
            rows.append([Cell(judge), Cell(name), number(estimate(values, centre=0.5)), *cells, number(unread, "d")])
    note = f"Against {runs.results['baseline']}, from stored verdicts. agrees: share of pairs judged alike by "
    note += f"{runs.results['judge']}, with Cohen's kappa. Verdicts that could not be read count nowhere."
    header = ["judge", "algorithm", "win rate", "agrees", "kappa", "unread"]
    return Table("By other judges", header, rows, note) if rows else None


def injections(runs: Runs, dataset: str) -> Table | None:
    """How often known injections in the worse reply turn the verdict of each judge that reads texts."""
    rows, judges = [], {}
    for run in runs.of(dataset):
        evaluations = run.results.get("evaluations") or {}
        reads = {run.results["judge"]: run.results.get("judge_reads_texts")}
        judges |= reads | {judge: own.get("judge_reads_texts") for judge, own in evaluations.items()}
        for judge, own in evaluations.items():
            for name, rate in (own.get("injection_flip_rate") or {}).items():
                if rate and name in runs.rows:
                    cells = [number({"mean": rate["rate"], "interval": rate["ci"]}), number(rate["trials"], "d")]
                    rows.append([Cell(judge), Cell(name), number(run.seed, "d"), *cells])
    tried = {row[0].text for row in rows}
    missing = [judge for judge, reads in judges.items() if reads and judge not in tried]
    if not rows and not missing:
        return None
    note = "Share of trials in which a known injection, appended to the reply that a judge finds worse, made it win. "
    note += " ".join(not_measured(judge) for judge in missing)
    return Table("Prompt injection", ["judge", "algorithm", "seed", "verdicts turned", "trials"], rows, note)


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
