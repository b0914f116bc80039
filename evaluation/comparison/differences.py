"""Differences between algorithms with uncertainty over training seeds and over prompts.

Few seeds are run, so that the spread between them is known badly. An interval that ignored this would call two runs of
one algorithm different; Student's t with one degree of freedom less than there are seeds makes it wide enough.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from scipy.stats import ncf, norm, t

from rlhf_trl_ext.statistics import LEVEL

ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 10**9  # beyond which there is no answer


def estimate(values: Sequence[np.ndarray], centre: float = 0.0, crossed: bool = False) -> dict:
    """Mean over seeds of the means over prompts, its 95 % interval, and a two-sided p-value against `centre`.

    values: one array of per-prompt numbers for each seed; NaN where there is none. Where seeds have prompts of their
    own, their means are independent and hold the spread over prompts: Student's t with S - 1 degrees of freedom. Where
    all seeds have the same prompts (`crossed`), what is peculiar to a prompt does not average out over seeds:
    `se^2 = (MS_seed + MS_prompt - MS_rest) / (S N)` of the two-way table, with Satterthwaite's degrees of freedom.
    One seed, or seeds whose means are all equal, give the normal interval over prompts, which does not speak of seeds.
    Returns mean, interval, p, spread (se), seeds. Raises ValueError for no seeds, or one without a number.
    """
    if not len(values) or any(np.isnan(own).all() for own in values):
        raise ValueError(f"{len(values)} seeds: an estimate needs at least one, and a number from each.")
    means, seeds = np.array([np.nanmean(own) for own in values]), len(values)
    mean, variance, law = float(means.mean()), float(means.var(ddof=1)) / seeds if seeds > 1 else 0.0, t(seeds - 1)
    if seeds > 1 and crossed and len({len(own) for own in values}) == 1 and len(values[0]) > 1:
        variance, degrees = _crossed(np.array(values, float))
        law = t(degrees)
    if variance <= 1e-24:
        counts = [max(int((~np.isnan(own)).sum()), 1) for own in values]
        variance = sum(np.nanvar(own) / count for own, count in zip(values, counts, strict=True)) / seeds**2
        law = norm
    spread = math.sqrt(variance)
    half, distance = float(law.ppf(1 - ALPHA / 2)) * spread, abs(mean - centre)
    p = float(2 * law.sf(distance / spread)) if spread > 0 else float(distance == 0)
    return {"mean": mean, "interval": [mean - half, mean + half], "p": p, "spread": spread, "seeds": seeds}


def _crossed(table: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of a `(S, N)` table of seeds by prompts, both drawn at random, and its degrees of freedom.

    Prompts that some seed has no number for are left out.
    """
    table = table[:, ~np.isnan(table).any(axis=0)]
    seeds, prompts = table.shape
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = ((table - rows - columns + table.mean()) ** 2).sum() / ((seeds - 1) * (prompts - 1))
    squares = np.array([prompts * rows.var(ddof=1), seeds * columns.var(ddof=1), -rest])
    degrees = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)])
    total = max(squares.sum(), squares[0], 0.0)  # not less than the seeds' own
    return total / (seeds * prompts), max(1.0, total**2 / max((squares**2 / degrees).sum(), 1e-300))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several tests, so that any false one is found with probability at most 5 % (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests  # takes a second, and not every user needs it

    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def compare(
    values: dict[str, Sequence[np.ndarray]], pairs: Sequence[tuple[str, str]], metric: str, crossed: bool = False
) -> list[dict]:
    """For every pair of algorithms: difference, interval, p, p_holm, distinguishable, in_words.

    values: algorithm -> one array for each seed, all algorithms on the same prompts of a seed in the same order, so
    that differences are taken prompt by prompt. p_holm adjusts for the number of pairs given; a difference is
    `distinguishable` when it is below 0.05. metric: the name that the words use. crossed: of `estimate`.
    """
    comparisons = []
    for a, b in pairs:
        gaps = [np.asarray(x, float) - np.asarray(y, float) for x, y in zip(values[a], values[b], strict=True)]
        result = estimate(gaps, crossed=crossed)
        comparisons.append({"a": a, "b": b, "metric": metric, "difference": result.pop("mean"), **result})
    return with_holm(comparisons)


def with_holm(rows: list[dict]) -> list[dict]:
    """Differences with p_holm, distinguishable and in_words, adjusted for as many comparisons as there are rows."""
    adjusted = holm([row["p"] for row in rows])
    rows = [{**row, "p_holm": p, "distinguishable": p < ALPHA} for row, p in zip(rows, adjusted, strict=True)]
    return [{**row, "in_words": in_words(row, len(rows))} for row in rows]


def in_words(row: dict, tests: int) -> str:
    """One sentence on a difference. tests: over how many the p-value was adjusted."""
    low, high = row["interval"]
    over = f"{row['seeds']} seeds and prompts" if row["seeds"] > 1 else "prompts of one seed, not over seeds"
    adjusted = f", adjusted for {tests} comparisons" if tests > 1 else ""
    numbers = f"{row['difference']:+.3g}, 95 % interval over {over} {low:+.3g} to {high:+.3g}, p {row['p_holm']:.2g}"
    numbers += adjusted
    if row["distinguishable"]:
        more = "higher" if row["difference"] > 0 else "lower"
        return f"{row['a']} has a {more} {row['metric']} than {row['b']}: {numbers}."
    return f"{row['a']} and {row['b']} are not distinguishable in {row['metric']}: {numbers}{_needed(row, tests)}."


def seeds_needed(effect: float, tests: int = 1) -> float:
    """Seeds with which a difference is told with a probability of 80 % by the test that decides here.

    effect: difference over the standard deviation between seeds. tests: comparisons among which this one has the
    smallest p-value, which Holm multiplies by their number. Infinite where a billion would not do.
    """
    alpha = ALPHA / tests

    def power(seeds: int) -> float:
        """Of Student's test of two sides, by the noncentral F, as scipy's noncentral t has holes."""
        critical = t.ppf(1 - alpha / 2, seeds - 1)
        return float(ncf.sf(critical**2, 1, seeds - 1, effect**2 * seeds))

    counts = range(2, MOST_SEEDS)
    return math.inf if power(counts[-1]) < POWER else counts[bisect_left(counts, POWER, key=power)]


def _needed(row: dict, tests: int) -> str:
    """How many seeds would tell a difference of this size, at the spread between those there are."""
    if row["seeds"] < 2 or row["difference"] == 0 or row["spread"] == 0:
        return ""
    count = seeds_needed(abs(row["difference"]) / (row["spread"] * math.sqrt(row["seeds"])), tests)
    if count == math.inf:
        return ""
    return f"; about {max(count, row['seeds'] + 1):,} seeds would tell a difference of this size"
