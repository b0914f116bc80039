"""The value loss of PPO, and what dashboards show of both of its losses."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_trl_ext.functional.masking import masked_mean, masked_variance, no_reduce


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None = 0.2
) -> tuple[Tensor, Tensor]:
    """`1/2 mean max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2)` over tokens that count (PPO2; arXiv:2403.17031).

    values, old_values, returns, mask: `(B, T)`, in reward units. clip: c in the same units; None: no clipping.
    Returns the loss and the share of tokens where the clipped branch is the larger one, scalars.
    """
    squared = (values - returns) ** 2
    if clip is None:
        return 0.5 * masked_mean(squared, mask), squared.new_zeros(())
    clipped = (torch.clamp(values, old_values - clip, old_values + clip) - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(squared, clipped), mask)
    return loss, masked_mean((clipped > squared).to(values.dtype), mask)


def explained_variance(
    values: Tensor, returns: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce
) -> Tensor:
    """`1 - Var(returns - values) / Var(returns)`: 1 is a perfect critic, 0 no better than a constant; 0 if Var is 0."""
    variance = masked_variance(returns, mask, total)
    unexplained = masked_variance(returns - values, mask, total)
    return torch.where(variance > 0, 1 - unexplained / variance.clamp(min=1e-12), torch.zeros_like(variance))


def policy_statistics(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> dict[str, Tensor]:
    """What TRL's PPO showed of an update: approxkl `1/2 mean (log ratio)^2`, clipfrac, mean and variance of the ratio.

    logprobs, old_logprobs, advantages, mask: `(B, T)`. low, high: the ratio is clipped to `[1 - low, 1 + high]`.
    """
    log_ratio = (logprobs - old_logprobs) * mask
    ratio = log_ratio.exp()
    clipped = torch.clamp(ratio, 1 - low, 1 + high) * advantages < ratio * advantages
    return {
        "approxkl": 0.5 * masked_mean(log_ratio**2, mask),
        "clipfrac": masked_mean(clipped.to(ratio.dtype), mask),
        "ratio": masked_mean(ratio, mask),
        "ratio_var": masked_variance(ratio, mask),
    }
