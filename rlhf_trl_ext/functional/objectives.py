"""Weights of several objectives."""

from torch import Tensor


def rebalanced(weights: Tensor, gains: Tensor, rate: float, least: float = 0.0) -> Tensor:
    """Weights moved towards the objectives that have gained least: `w_i exp(-rate gain_i) / Z`, each at least `least`.

    Exponentiated gradient on the weights of `max_policy min_i gain_i`, the max-min problem of several rewards
    (Chakraborty et al., arXiv:2402.08925, with weights updated as by Freund and Schapire 1999). weights, gains: `(K,)`,
    gains in any unit that the objectives share. Returns `(K,)` with the sum of `weights`; equal gains change nothing.
    least: share of that sum. Raises ValueError unless `0 <= least <= 1 / K` and rate >= 0.
    """
    count = len(weights)
    if not 0 <= least <= 1 / count or rate < 0:
        raise ValueError(
            f"least={least}, rate={rate}: allowed are 0 to {1 / count:.3g} for {count} objectives, and >= 0."
        )
    total = weights.sum()
    moved = weights * (-rate * (gains - gains.mean())).exp()
    return total * (least + (1 - count * least) * moved / moved.sum())
