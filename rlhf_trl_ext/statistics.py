"""Intervals and agreement of outcomes that the library itself reports: 1 = win, 0.5 = tie, 0 = loss, one per pair."""

import numpy as np

LEVEL = 0.95
DRAWS = 20_000_000  # resampled values in all, unless that is fewer than 1,000 resamples


def wilson_interval(successes: float, total: int, level: float = LEVEL) -> list[float]:
    """Score interval [low, high] of a share (Wilson 1927), by statsmodels.

    successes: wins plus half the ties; ties make the interval too wide rather than too narrow.
    Raises ValueError when total < 1.
    """
    from statsmodels.stats.proportion import proportion_confint  # takes a second, and not every user needs it

    if total < 1:
        raise ValueError(f"total={total}: an interval needs at least 1 outcome.")
    low, high = proportion_confint(successes, total, alpha=1 - level, method="wilson")
    return [float(low), float(high)]


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


def cohen_kappa(first, second) -> float | None:
    """Agreement of two judges beyond chance, `(p_o - p_e) / (1 - p_e)` (Cohen 1960), by scikit-learn.

    first, second: `(N,)` outcomes of the same pairs, 1, 0.5 or 0. None when chance alone explains all (both constant
    and equal).
    """
    from sklearn.metrics import cohen_kappa_score  # takes a second, and not every user needs it

    classes = [(2 * np.asarray(outcomes, dtype=float)).astype(int) for outcomes in (first, second)]
    if len(np.unique(classes)) == 1:
        return None
    return float(cohen_kappa_score(*classes, labels=[0, 1, 2]))
