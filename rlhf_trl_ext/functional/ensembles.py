"""One reward from several reward models (Coste et al., arXiv:2310.02743, section 3)."""

from torch import Tensor

MODES = ("mean", "worst", "uncertainty")


def aggregate(rewards: Tensor, mode: str = "mean", weight: float = 0.1) -> Tensor:
    """`mean`: mean_k r_k; `worst`: min_k r_k (WCO); `uncertainty`: mean_k r_k - weight Var_k r_k (UWO).

    rewards: `(K, B)`, the rewards of K models, brought to one scale first, or the minimum is decided by the scale.
    weight: in 1 / reward units; the variance is over the K models, biased (divided by K). Returns `(B,)`.
    Raises ValueError for another mode.
    """
    if mode == "mean":
        return rewards.mean(0)
    if mode == "worst":
        return rewards.amin(0)
    if mode == "uncertainty":
        return rewards.mean(0) - weight * rewards.var(0, unbiased=False)
    raise ValueError(f"mode={mode}: allowed are {', '.join(MODES)}.")
