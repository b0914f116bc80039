"""What a win rate shows: a test against one half, how many prompts would tell, and a sentence."""

import math

import numpy as np
from scipy.stats import binomtest, norm

from rlhf_trl_ext.statistics import LEVEL


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


def in_words(name: str, baseline: str, result: dict) -> str:
    """One sentence on what a win rate shows. result: `win_rate`, `win_rate_ci`, `pairs`, `prompts_needed`."""
    low, high = result["win_rate_ci"]
    rate = f"win rate {result['win_rate']:.1%} over {result['pairs']} pairs, 95 % interval {low:.1%} to {high:.1%}"
    if low > 0.5:
        return f"{name} is better than {baseline}: {rate}."
    if high < 0.5:
        return f"{name} is worse than {baseline}: {rate}."
    needed = result["prompts_needed"]
    enough = "no number of prompts" if needed is None else f"about {max(needed, result['pairs'] + 1):,} prompts"
    return f"{name} is not distinguishable from {baseline}: {rate}; {enough} would tell at this win rate."
