"""Sampled tokens until a training reward is reached, where some runs never reach it."""

import numpy as np
from scipy.stats import CensoredData, ecdf, t

from evaluation.comparison.learning_curves import WINDOW, Curve, smoothed

POINTS = 400


def tokens_to(target: float, curve: Curve, width: float) -> tuple[float, bool]:
    """Sampled tokens at which a curve smoothed over its last `width` tokens reaches `target`, and whether it does.

    A run that does not reach it is censored at the last token that it sampled.
    """
    grid = np.linspace(0, curve[0][-1], POINTS + 1)[1:]
    reached = np.flatnonzero(smoothed(curve, grid, width) >= target)
    return (float(grid[reached[0]]), True) if len(reached) else (float(curve[0][-1]), False)


def final_reward(curve: Curve, width: float) -> float:
    """Mean reward of the last `width` sampled tokens."""
    return float(smoothed(curve, curve[0][-1:], width)[0])


def restricted_mean(tokens: np.ndarray, reached: np.ndarray, horizon: float) -> float:
    """`integral_0^horizon S(t) dt` of the Kaplan-Meier curve S: mean tokens to the target, counted up to the horizon.

    A censored run counts as not there yet for as long as it ran, and as the others afterwards (Royston and Parmar,
    doi:10.1186/1471-2288-13-152). tokens: `(S,)`; reached: `(S,)`, False where a run was censored.
    """
    survival = ecdf(CensoredData(uncensored=tokens[reached], right=tokens[~reached])).sf
    inside = survival.quantiles < horizon
    edges = np.concatenate([[0.0], survival.quantiles[inside], [horizon]])
    levels = np.concatenate([[1.0], survival.probabilities[inside]])
    return float((np.diff(edges) * levels).sum())


def interval(tokens: np.ndarray, reached: np.ndarray, horizon: float) -> list[float] | None:
    """95 % interval over seeds of the restricted mean, by Student's t on its jackknife pseudo-values.

    These are the tokens counted up to the horizon where every run sampled as many (Andersen et al., Biometrika 2003).
    None for a single seed, or where all have the same value, as where none reaches the target.
    """
    seeds = len(tokens)
    if seeds < 2:
        return None
    whole, others = restricted_mean(tokens, reached, horizon), ~np.eye(seeds, dtype=bool)
    left = np.array([restricted_mean(tokens[kept], reached[kept], horizon) for kept in others])
    values = seeds * whole - (seeds - 1) * left
    half = float(t.ppf(0.975, seeds - 1) * values.std(ddof=1) / np.sqrt(seeds))
    return [max(0.0, whole - half), min(horizon, whole + half)] if half > 1e-9 * horizon else None


def summarise(curves: dict[str, list[Curve]], targets: list[float]) -> dict[str, dict]:
    """For every algorithm: restricted mean of the tokens to the target with its 95 % interval over seeds, if any.

    curves: algorithm -> a curve for each seed; targets: the reward to reach of each seed. The horizon is the smallest
    number of tokens that all algorithms sampled in every run, and curves are smoothed over a fifth of it. Returns
    tokens, reached (by seed), reached_count, mean, interval, horizon.
    """
    horizon = float(min(curve[0][-1] for runs in curves.values() for curve in runs))
    summaries = {}
    for name, runs in curves.items():
        pairs = [tokens_to(target, run, WINDOW * horizon) for target, run in zip(targets, runs, strict=True)]
        tokens, reached = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
        summaries[name] = {
            "tokens": tokens.tolist(),
            "reached": reached.tolist(),
            "reached_count": int((reached & (tokens <= horizon)).sum()),
            "mean": restricted_mean(tokens, reached, horizon),
            "interval": interval(tokens, reached, horizon),
            "horizon": horizon,
        }
    return summaries
