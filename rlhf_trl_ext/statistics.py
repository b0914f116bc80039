"""Intervals and agreement of outcomes that the library itself reports: 1 = win, 0.5 = tie, 0 = loss, one per pair."""

import math

import numpy as np
from scipy.stats import t

LEVEL = 0.95
SKEWED = 1000  # prompts from which the mean of skewed values is normal enough for Student's interval


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


def mean_interval(
    values: np.ndarray,
    bounds: tuple[float, float] | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[float]:
    """95 % interval of the mean over prompts, `[low, high]`, in the unit of `values`; coverage: evaluation/RESULTS.md.

    With bounds, of wins and ties (0, 1) or of differences of such (-1, 1): the score interval (Wilson 1927) with the
    number of values that a share of the same variance would need (Kott and Carr 1997), that variance drawn to a share's
    by the weight of one value, and Student's t. Without: the wider end of Student's interval and, up to 1,000 prompts,
    the studentised bootstrap (Efron and Tibshirani 1993, 12.5), as rewards and divergences are skewed.

    values: `(N,)`, one per pair; for two policies on the same prompts give the differences (paired).
    groups: `(N,)` integers, pairs of one prompt share one and count as one. None: one pair a prompt.
    A single prompt gives the bounds; without bounds, equal values give width 0. Raises ValueError for no values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        raise ValueError("no values: an interval needs at least 1.")
    totals, sizes = values, np.ones(len(values))
    if groups is not None:
        _, position = np.unique(groups, return_inverse=True)
        totals, sizes = np.bincount(position, values), np.bincount(position).astype(float)
    if bounds is None:
        return _studentised(totals, sizes, resamples, seed)
    low, high = bounds
    ends = _score((totals - low * sizes) / (high - low), sizes)
    return [float(low + (high - low) * end) for end in ends]


def _mean_and_error(totals: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of pairs and their standard errors. totals, sizes: `(..., G)`, of the pairs of each prompt."""
    prompts, pairs = totals.shape[-1], sizes.sum(-1)
    mean = totals.sum(-1) / pairs
    squares = ((totals - mean[..., None] * sizes) ** 2).sum(-1)
    return mean, np.sqrt(squares * prompts / max(prompts - 1, 1)) / pairs


def _score(totals: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    prompts, pairs = len(totals), sizes.sum()
    if prompts < 2:
        return 0.0, 1.0
    share, error = _mean_and_error(totals, sizes)
    z, variance = t.ppf((1 + LEVEL) / 2, prompts - 1), share * (1 - share)
    squares = error**2 * (prompts - 1) / prompts  # as a share's own variance has it
    count = float(prompts)
    if variance > 1e-12:
        ratio = (prompts * squares * pairs / variance + 1) / (prompts + 1)  # 1 for wins and losses of single pairs
        count = pairs / ratio
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(max(variance, 0.0) / count + z * z / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _studentised(totals: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> list[float]:
    prompts = len(totals)
    mean, error = _mean_and_error(totals, sizes)
    if prompts < 2 or error < 1e-12 * max(1.0, abs(mean)):
        return [float(mean), float(mean)]
    half = float(t.ppf((1 + LEVEL) / 2, prompts - 1))
    low, high = -half, half
    if prompts <= SKEWED:
        indices = np.random.default_rng(seed).integers(prompts, size=(resamples, prompts))
        means, errors = _mean_and_error(totals[indices], sizes[indices])
        spread = errors > 1e-9 * error
        left, right = np.quantile((means[spread] - mean) / errors[spread], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = min(low, left), max(high, right)
    return [float(mean - high * error), float(mean - low * error)]


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
