"""What policy gradients are made of, per token: means, advantages, divergences, losses.

A mask is 1 at the tokens that count. Masked positions (padding, tool output) do not exist, also between two that count.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ESTIMATORS = ("k1", "k3")


def no_reduce(totals: Tensor) -> Tensor:
    """The sum over processes when there is one process."""
    return totals


def masked_mean(values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce) -> Tensor:
    """`sum(values * mask) / sum(mask)`; 0 where nothing counts.

    values, mask: any one shape. total: sums a `(2,)` tensor over processes. Returns a scalar.
    """
    mask = mask.to(values.dtype)
    value, count = total(torch.stack([(values * mask).sum(), mask.sum()]))
    return value / count.clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce) -> Tensor:
    """Unbiased variance `sum((x - mean)^2 mask) / (sum(mask) - 1)`; 0 where fewer than two values count."""
    mask = mask.to(values.dtype)
    deviations = (values - masked_mean(values, mask, total)) ** 2
    squares, count = total(torch.stack([(deviations * mask).sum(), mask.sum()]))
    return squares / (count - 1).clamp(min=1)


def whiten(
    values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce, epsilon: float = 1e-8
) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon)` over the tokens of all processes (arXiv:2403.17031, section 3).

    values, mask: `(B, T)`. Returns `(B, T)`, 0 where mask is 0. A batch whose values are all equal becomes 0.
    """
    centred = values - masked_mean(values, mask, total)
    return centred * torch.rsqrt(masked_variance(values, mask, total) + epsilon) * mask.to(values.dtype)


def last_token(mask: Tensor) -> Tensor:
    """1 at the last position of each row that counts, 0 elsewhere; rows without one are all 0. `(B, T)` -> `(B, T)`."""
    counts = mask.long()
    from_here = counts.flip(1).cumsum(1).flip(1)
    return (counts * (from_here == 1)).to(mask.dtype)


def with_phantom(mask: Tensor) -> Tensor:
    """The mask with one more position after each row's last one, where the row has room (TRL 1.12's `padding_mask_p1`).

    TRL 1.12's PPO pays the score there, one step after the end-of-sequence token. `(B, T)` -> `(B, T)`.
    """
    after = torch.zeros_like(mask)
    after[:, 1:] = last_token(mask)[:, :-1]
    return torch.maximum(mask, after)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float | Tensor = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns (Schulman et al., arXiv:1506.02438, eq. 16).

    `delta_t = r_t + gamma V_{t+1} - V_t`, `A_t = delta_t + gamma lam A_{t+1}`, `return_t = A_t + V_t`, where t+1 is the
    next position that counts and V is 0 after the last one.

    rewards, values, mask: `(B, T)`; rewards in reward units per token. lam: a number, or `(B,)` for each row its own.
    Returns advantages and returns, `(B, T)`, 0 where mask is 0. Rows without a counting token are 0.
    """
    counts = mask.bool()
    advantages = torch.zeros_like(values)  # (B, T)
    next_value = next_advantage = torch.zeros_like(values[:, 0])  # (B,)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(counts[:, t], advantage, next_advantage)
        next_value = torch.where(counts[:, t], values[:, t], next_value)
        advantages[:, t] = torch.where(counts[:, t], advantage, torch.zeros_like(advantage))
    return advantages, torch.where(counts, advantages + values, torch.zeros_like(values))


def length_adaptive_lambda(mask: Tensor, alpha: float = 0.05, low: float = 0.9) -> Tensor:
    """`lam = 1 - 1 / (alpha length)`, at least `low` and at most 1 (VAPO, arXiv:2504.05118, section 4.1).

    mask: `(B, T)`. Returns `(B,)`: by default 0.9 up to 200 tokens, 0.98 at 1000; `low` for a row without tokens.
    """
    lengths = mask.sum(1).to(torch.get_default_dtype()).clamp(min=1)
    return (1 - 1 / (alpha * lengths)).clamp(min=low, max=1.0)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled (J. Schulman, 2020).

    `k1 = log policy - log reference`: unbiased, of either sign; in the reward its gradient is that of the true KL.
    `k3 = exp(-k1) + k1 - 1`: unbiased, never negative; in the reward its gradient is biased.
    logprobs, ref_logprobs: `(B, T)`, nats. Returns `(B, T)`, nats. Raises ValueError for another estimator.
    """
    difference = logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k3":
        return torch.exp(-difference) - 1 + difference
    raise ValueError(f"kl_estimator={estimator}: allowed are {' and '.join(ESTIMATORS)}.")


def adapted_coefficient(coefficient: float, kl: float, target: float, horizon: float, sequences: int) -> float:
    """`coefficient (1 + clip(kl / target - 1, -0.2, 0.2) sequences / horizon)` (Ziegler et al., arXiv:1909.08593, 2.2).

    kl, target: nats per sequence. horizon: the sequences in which an error of 0.2 changes the coefficient by a fifth.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * sequences / horizon)


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
