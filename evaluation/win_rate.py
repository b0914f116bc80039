"""Win rate of a policy over a baseline on the same prompts, with an interval over prompts."""

import numpy as np

from evaluation.judge import Judge


def win_rate(judge: Judge, policy: list[dict], baseline: list[dict]) -> dict:
    """`win_rate` (ties count one half), its 95 % interval `win_rate_ci`, and `wins`, `ties`, `losses`.

    policy, baseline: samples of `launchers.generate` on the same prompts in the same order.
    Raises ValueError when the prompts differ or fewer than 2 pairs are given.
    """
    if len(policy) != len(baseline) or any(a["prompt"] != b["prompt"] for a, b in zip(policy, baseline, strict=True)):
        raise ValueError(
            f"samples of different prompts cannot be compared ({len(policy)} and {len(baseline)} rows): "
            "generate both with the same dataset, seed and samples.max_prompts."
        )
    if len(policy) < 2:
        raise ValueError(f"{len(policy)} pair(s) to compare: at least 2 are needed for an interval.")
    outcomes = np.array(judge.compare(policy, baseline), dtype=float)
    low, high = bootstrap_interval(outcomes)
    return {
        "win_rate": float(outcomes.mean()),
        "win_rate_ci": [low, high],
        "wins": int((outcomes == 1).sum()),
        "ties": int((outcomes == 0.5).sum()),
        "losses": int((outcomes == 0).sum()),
    }


def bootstrap_interval(values: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0):
    """Percentile bootstrap interval of the mean over the first axis (Efron 1979), in the unit of `values`.

    values: `(N,)`, one per prompt. Returns (low, high). Constant values give an interval of width 0.
    """
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
