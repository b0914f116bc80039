"""Advantages and returns of token sequences with holes: masked positions (padding, tool output) do not exist."""

import torch
from torch import Tensor


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
