"""Bradley-Terry strengths of several policies, with intervals over prompts."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import t


def bradley_terry(wins: np.ndarray, steps: int = 100, tolerance: float = 1e-10) -> np.ndarray:
    """Strengths s with `P(i beats j) = sigmoid(s_i - s_j)` (Bradley and Terry 1952), mean 0, by Newton's method.

    wins: `(..., K, K)`, wins of row over column, a tie half to each. Half a win is added to both sides of every pair
    that met, so that a policy that always wins stays finite. Without a chain of comparisons between two policies their
    difference means nothing. Returns `(..., K)` in natural logits.
    """
    wins = np.asarray(wins, dtype=float)
    games = wins + np.swapaxes(wins, -1, -2)
    wins, games = wins + 0.5 * (games > 0), games + (games > 0)
    strengths = np.zeros(wins.shape[:-1])  # (..., K)
    identity = np.eye(wins.shape[-1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))  # (..., K, K)
        gradient = (wins - games * p).sum(-1)
        weight = games * p * (1 - p)
        hessian = identity * (weight.sum(-1)[..., None] + 1e-9) - weight
        step = np.linalg.solve(hessian + 1 / wins.shape[-1], gradient[..., None])[..., 0]
        strengths = strengths + np.clip(step, -2, 2)
        if np.abs(step).max() < tolerance:
            break
    return strengths - strengths.mean(-1, keepdims=True)


def ranking(
    names: Sequence[str], games: dict[tuple[str, str], np.ndarray], resamples: int = 500, seed: int = 0
) -> list[dict]:
    """Policies from strongest to weakest: `strength`, 95 % `interval`, `distinct_from_next`.

    games: (a, b) -> `(N,)` outcomes of a against b on the same N prompts, NaN where there is none. Prompts are
    resampled whole (all pairs of a prompt together); the interval is Student's with the deviation of the resampled
    strengths, whose percentiles are too narrow for few prompts. `distinct_from_next`: whether the interval of the
    difference to the next policy excludes 0. Raises ValueError when the pairs differ in their number of prompts.
    """
    sizes = {len(outcomes) for outcomes in games.values()}
    if len(sizes) != 1:
        raise ValueError(f"{sorted(sizes)} outcomes of different pairs: all pairs are judged on the same prompts.")
    (prompts,) = sizes
    place = {name: index for index, name in enumerate(names)}
    won = np.zeros((prompts, len(names), len(names)))
    for (a, b), outcomes in games.items():
        outcomes = np.asarray(outcomes, dtype=float)
        won[:, place[a], place[b]] += np.nan_to_num(outcomes)
        won[:, place[b], place[a]] += np.nan_to_num(1 - outcomes)
    strengths = bradley_terry(won.sum(0))
    generator = np.random.default_rng(seed)
    flat = won.reshape(prompts, -1)
    wins = np.stack(
        [np.bincount(generator.integers(0, prompts, prompts), minlength=prompts) @ flat for _ in range(resamples)]
    )
    resampled = bradley_terry(wins.reshape(resamples, *won.shape[1:]))  # (R, K)
    order = np.argsort(-strengths)

    def margin(values: np.ndarray) -> float:
        return float(t.ppf(0.975, prompts - 1) * values.std(ddof=1) * np.sqrt(prompts / max(prompts - 1, 1)))

    def distinct(stronger: int, weaker: int) -> bool:
        gap = strengths[stronger] - strengths[weaker]
        return bool(gap > margin(resampled[:, stronger] - resampled[:, weaker]))

    return [
        {
            "policy": names[i],
            "strength": float(strengths[i]),
            "interval": [float(strengths[i] - margin(resampled[:, i])), float(strengths[i] + margin(resampled[:, i]))],
            "distinct_from_next": distinct(i, order[rank + 1]) if rank + 1 < len(order) else None,
        }
        for rank, i in enumerate(order)
    ]


def every_pair(names: Sequence[str]) -> list[tuple[str, str]]:
    """All unordered pairs of names, in order."""
    return list(combinations(names, 2))
