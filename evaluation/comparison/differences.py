"""Differences between algorithms with uncertainty over training seeds and over prompts.

Few seeds are run, so that the spread between them is known badly. An interval that ignored this would call two runs of
one algorithm different; here Student's t with one degree of freedom less than there are seeds makes it wider.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

from rlhf_trl_ext.statistics import LEVEL

RESAMPLES = 2000
ALPHA = 1 - LEVEL
POWER = 0.8


def hierarchical_means(values: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of resampled data, `(resamples,)`: seeds are drawn with replacement, then prompts within each drawn seed.

    values: one array of per-prompt numbers for each seed; NaN where there is none.
    """
    generator = np.random.default_rng(seed)
    kept = [np.asarray(own, float)[~np.isnan(own)] for own in values]
    drawn = generator.integers(len(kept), size=(resamples, len(kept)))  # (R, S) which seed stands in each place
    found = np.empty(drawn.shape)
    for number, own in enumerate(kept):
        places = np.flatnonzero(drawn.ravel() == number)
        rows = generator.integers(len(own), size=(len(places), len(own)))
        found.ravel()[places] = own[rows].mean(axis=1)
    return found.mean(axis=1)


def estimate(values: Sequence[np.ndarray], centre: float = 0.0) -> dict:
    """Mean over seeds of the means over prompts, its 95 % interval, and a two-sided p-value against `centre`.

    `mean +- t_{S-1} se` with `se^2 = max(S / (S - 1) (var(hierarchical_means) - v), v)`, v = the variance of the mean
    from prompts alone. The bootstrap's variance for S seeds is `(S - 1) / S` of the one between their means
    (Hesterberg, arXiv:1411.5279, 3.2), which holds v already, and v once more; both are put right, and v is the least
    it can be. With one seed se^2 = v and t is normal: the interval is over prompts only, and does not speak of seeds.
    Returns mean, interval, p, spread (se), seeds. Raises ValueError for no seeds, or one without a number.
    """
    if not len(values) or any(np.isnan(own).all() for own in values):
        raise ValueError(f"{len(values)} seeds: an estimate needs at least one, and a number from each.")
    mean, seeds = float(np.mean([np.nanmean(own) for own in values])), len(values)
    counts = [max(int((~np.isnan(own)).sum()), 1) for own in values]
    variance = sum(np.nanvar(own) / count for own, count in zip(values, counts, strict=True)) / seeds**2
    if seeds > 1:
        between = hierarchical_means(values).var() - variance
        variance = max(variance, seeds / (seeds - 1) * between)
    spread, law = math.sqrt(variance), t(seeds - 1) if seeds > 1 else norm
    half, distance = float(law.ppf(1 - ALPHA / 2)) * spread, abs(mean - centre)
    p = float(2 * law.sf(distance / spread)) if spread > 0 else float(distance == 0)
    return {"mean": mean, "interval": [mean - half, mean + half], "p": p, "spread": spread, "seeds": seeds}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several tests, so that any false one is found with probability at most 5 % (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests  # takes a second, and not every user needs it

    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def compare(values: dict[str, Sequence[np.ndarray]], pairs: Sequence[tuple[str, str]], metric: str) -> list[dict]:
    """For every pair of algorithms: difference, interval, p, p_holm, distinguishable, in_words.

    values: algorithm -> one array for each seed, all algorithms on the same prompts of a seed in the same order, so
    that differences are taken prompt by prompt. p_holm adjusts for the number of pairs given; a difference is
    `distinguishable` when it is below 0.05. metric: the name that the words use.
    """
    found = []
    for a, b in pairs:
        gaps = [np.asarray(x, float) - np.asarray(y, float) for x, y in zip(values[a], values[b], strict=True)]
        result = estimate(gaps)
        found.append({"a": a, "b": b, "metric": metric, "difference": result.pop("mean"), **result})
    return with_holm(found)


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
    return f"{row['a']} and {row['b']} are not distinguishable in {row['metric']}: {numbers}{_needed(row)}."


def _needed(row: dict) -> str:
    """How many seeds would tell a difference of this size with a probability of 80 %, at the spread seen."""
    if row["seeds"] < 2 or row["difference"] == 0:
        return ""
    ratio = row["spread"] * math.sqrt(row["seeds"]) / abs(row["difference"])
    count = max(math.ceil(((norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * ratio) ** 2), row["seeds"] + 1)
    return f"; about {count:,} seeds would tell a difference of this size"
