"""Reward at a common KL, interpolated between the tries of every algorithm's tuning."""

import numpy as np

from evaluation.comparison.differences import estimate

LEVELS = 3


def at_kl(points: list[tuple[float, float]], kl: float) -> float | None:
    """Reward at `kl` on the lines between (KL, reward) points, in the order of their KL; None where none is beyond."""
    places, rewards = np.array(sorted(points)).T
    return float(np.interp(kl, places, rewards)) if places[0] <= kl <= places[-1] else None


def common_kl(points: dict[str, list[list[tuple[float, float]]]]) -> dict:
    """Rewards of algorithms where their KL is the same: `levels`, and for every algorithm an estimate or None for each.

    points: algorithm -> for every seed (KL, reward) of its tries. Levels are the lowest, middle and highest KL of those
    tried that most algorithms have points on both sides of, on every seed. Nothing is extrapolated.
    """

    def reached(kl: float, seeds: list[list[tuple[float, float]]]) -> bool:
        return all(at_kl(own, kl) is not None for own in seeds)

    tried = sorted({kl for seeds in points.values() for own in seeds for kl, _ in own})
    counts = [sum(reached(kl, seeds) for seeds in points.values()) for kl in tried]
    shared = [kl for kl, count in zip(tried, counts, strict=True) if count == max(counts) > 1]
    levels = sorted({shared[round(i * (len(shared) - 1) / (LEVELS - 1))] for i in range(LEVELS)} if shared else [])
    rewards = {
        name: [_over_seeds([at_kl(own, kl) for own in seeds]) if reached(kl, seeds) else None for kl in levels]
        for name, seeds in points.items()
    }
    return {"levels": levels, "rewards": rewards}


def _over_seeds(rewards: list[float]) -> dict:
    found = estimate([np.array([reward]) for reward in rewards])
    return found if len(rewards) > 1 else {**found, "interval": None}  # one seed says nothing of others
