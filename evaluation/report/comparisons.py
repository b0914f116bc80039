"""Every two policies of a data set: who wins, by how much, and whether they can be told apart."""

from evaluation.comparison.differences import ALPHA, holm
from evaluation.report.runs import Runs
from evaluation.verdicts.ranking import every_pair

Comparisons = dict[tuple[str, str], dict]


def comparisons(runs: Runs, dataset: str) -> Comparisons:
    """(a, b) -> mean, interval, distinguishable, direct; both orders of every pair that anything is known of.

    direct: mean is how often a wins where the judge saw both, 0 to 1. Otherwise it is the difference of their win rates
    against the baseline. p-values of two algorithms are adjusted for all such pairs (Holm); against the baseline the
    interval alone decides, as in the forest plot.
    """
    summary, baseline = runs.results["by_dataset"][dataset], runs.results["baseline"]
    known = {**_differences(summary["differences"]), **_direct(summary["matrix"])}
    rivals = [pair for pair in known if baseline not in pair]
    adjusted = dict(zip(rivals, holm([known[pair]["p"] for pair in rivals]), strict=True))
    both: Comparisons = {}
    for (a, b), own in known.items():
        p = adjusted.get((a, b), own["p"])
        row = {key: own[key] for key in ("mean", "interval", "direct")} | {"distinguishable": p < ALPHA}
        total = 1 if own["direct"] else 0
        low, high = own["interval"]
        both[a, b] = row
        both[b, a] = {**row, "mean": total - own["mean"], "interval": [total - high, total - low]}
    return both


def _differences(rows: list[dict]) -> dict[tuple[str, str], dict]:
    own = [row for row in rows if row["key"] == "win_rate"]
    return {(row["a"], row["b"]): {**row, "mean": row["difference"], "direct": False} for row in own}


def _direct(matrix: dict) -> dict[tuple[str, str], dict]:
    pairs = every_pair(matrix["names"])
    return {(a, b): {**cell, "direct": True} for a, b in pairs if (cell := matrix["cells"][a][b]) is not None}
