"""Intervals and tests for outcomes of pairwise comparisons: 1 = win, 0.5 = tie, 0 = loss, one per pair."""

import math

import numpy as np
from scipy.stats import binomtest, norm

LEVEL = 0.95
DRAWS = 20_000_000  # resampled values in all, unless that is fewer than 1,000 resamples


def wilson_interval(successes: float, total: int, level: float = LEVEL) -> list[float]:
    """Score interval of a share, `(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)` (Wilson 1927).

    successes: wins plus half the ties; ties make the interval too wide rather than too narrow.
    Returns [low, high]. Raises ValueError when total < 1.
    """
    if total < 1:
        raise ValueError(f"total={total}: an interval needs at least 1 outcome.")
    z = norm.ppf((1 + level) / 2)
    share = successes / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return [max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))]


def bootstrap_interval(
    values: np.ndarray, level: float = LEVEL, resamples: int = 10_000, seed: int = 0, groups: np.ndarray | None = None
) -> list[float]:
    """Percentile bootstrap interval of the mean over prompts (Efron 1979), in the unit of `values`.

    values: `(N,)`, one per pair; for two policies on the same prompts give the differences (paired bootstrap).
    groups: `(N,)` integers, pairs of one prompt share one; prompts are resampled whole. None: one pair a prompt.
    With few distinct values the resample counts are drawn directly, otherwise `DRAWS` limits the resamples.
    Returns [low, high]; constant values give an interval of width 0. Raises ValueError for no values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        raise ValueError("no values: an interval needs at least 1.")
    totals, sizes = values, np.ones(len(values))
    if groups is not None:
        _, position = np.unique(groups, return_inverse=True)
        totals, sizes = np.bincount(position, values), np.bincount(position).astype(float)
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(np.stack([totals, sizes]), axis=1, return_counts=True)  # (2, U), (U,)
    if len(counts) <= 100:
        drawn = generator.multinomial(len(totals), counts / counts.sum(), size=resamples)  # (R, U)
        means = (drawn @ distinct[0]) / (drawn @ distinct[1])
    else:
        means = np.empty(min(resamples, max(1000, DRAWS // len(totals))))
        for index in range(len(means)):
            chosen = generator.integers(0, len(totals), len(totals), dtype=np.int32)
            means[index] = totals[chosen].sum() / sizes[chosen].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def sign_test(outcomes: np.ndarray) -> float:
    """Two-sided p-value of `wins ~ Binomial(wins + losses, 1/2)`; ties are left out, 1.0 when nothing else is left."""
    wins, losses = int((np.asarray(outcomes) == 1).sum()), int((np.asarray(outcomes) == 0).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def prompts_needed(outcomes: np.ndarray, level: float = LEVEL, power: float = 0.8) -> int | None:
    """Prompts that would tell this win rate from one half, `n = (z_{(1+level)/2} + z_power)^2 var / (p - 1/2)^2`.

    var: variance of the outcomes, so ties reduce n. Returns None when the win rate is exactly one half.
    """
    outcomes = np.asarray(outcomes, dtype=float)
    distance = outcomes.mean() - 0.5
    if abs(distance) < 1e-12:
        return None
    z = norm.ppf((1 + level) / 2) + norm.ppf(power)
    return max(2, math.ceil(z * z * outcomes.var() / distance**2))


def cohen_kappa(first, second) -> float | None:
    """Agreement of two judges beyond chance, `(p_o - p_e) / (1 - p_e)` (Cohen 1960), over win, tie and loss.

    first, second: `(N,)` outcomes of the same pairs. None when chance alone explains all (both constant and equal).
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    labels = np.union1d(first, second)
    observed = (first == second).mean()
    expected = sum((first == label).mean() * (second == label).mean() for label in labels)
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def in_words(name: str, baseline: str, result: dict) -> str:
    """One sentence on what a win rate shows. result: `win_rate`, `win_rate_ci`, `pairs`, `prompts_needed`."""
    low, high = result["win_rate_ci"]
    told = f"win rate {result['win_rate']:.1%} over {result['pairs']} pairs, 95 % interval {low:.1%} to {high:.1%}"
    if low > 0.5:
        return f"{name} is better than {baseline}: {told}."
    if high < 0.5:
        return f"{name} is worse than {baseline}: {told}."
    needed = result["prompts_needed"]
    enough = "no number of prompts" if needed is None else f"about {max(needed, result['pairs'] + 1):,} prompts"
    return f"{name} is not distinguishable from {baseline}: {told}; {enough} would tell at this win rate."
