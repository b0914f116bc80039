"""Soft value iteration over the prefixes of sampled completions: backups, regression loss, reliability of a critic.

Tokens are deterministic transitions and the reward R comes with the last one, so the regularised optimality operator
`(T V)(s) = eta log E_{a ~ pi}[exp(V(s a) / eta)]` has the fixed point `V*(s) = eta log E_pi[exp(R / eta) | s]`
(Geist et al., arXiv:1901.11275), and `V*(s a) - V*(s)` is the direction of the greedy policy that stays close to pi.
The temperature eta is in reward units; infinity gives the mean, that is policy evaluation.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_trl_ext.functional.policy_gradient import gae, last_token, masked_mean, no_reduce


def soft_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, temperature: float, lam: float | Tensor = 0.9
) -> Tensor:
    """Lambda-returns mixed in the space of exp(. / eta): `G_last = R` and, before it,

    `G_t = eta log((1 - lam) exp(V_{t+1} / eta) + lam exp(G_{t+1} / eta))`, where t+1 is the next position that counts.
    Mixed arithmetically, their regression would miss the fixed point of the soft operator.

    rewards: `(B,)`. values, mask: `(B, T)`, in reward units; `values[:, t]` is that of the state before token t.
    temperature: eta, in reward units; infinity mixes arithmetically. lam: a number, or `(B,)` below 1.
    Returns `(B, T)`, 0 where mask is 0.
    """
    counts = mask.bool()
    returns = torch.zeros_like(values)  # (B, T)
    next_return, next_value, last = rewards.to(values.dtype), torch.zeros_like(values[:, 0]), last_token(mask).bool()
    for t in reversed(range(values.shape[1])):
        mixed = torch.where(last[:, t], next_return, _mix(next_value, next_return, temperature, lam))  # (B,)
        returns[:, t] = torch.where(counts[:, t], mixed, 0.0)
        next_return = torch.where(counts[:, t], mixed, next_return)
        next_value = torch.where(counts[:, t], values[:, t], next_value)
    return returns


def _mix(value: Tensor, following: Tensor, temperature: float, lam: float | Tensor) -> Tensor:
    if math.isinf(temperature) or (not isinstance(lam, Tensor) and lam in (0.0, 1.0)):
        return (1 - lam) * value + lam * following
    top = torch.maximum(value, following)
    # expm1 and log1p: at a temperature far above the values, exp(. / eta) - 1 would be rounding.
    parts = ((share, torch.expm1((x - top) / temperature)) for share, x in ((1 - lam, value), (lam, following)))
    return top + temperature * torch.log1p(sum(share * part for share, part in parts))


def linex_loss(errors: Tensor, temperature: float, clip: float = 5.0) -> tuple[Tensor, Tensor]:
    """`eta^2 (exp(u / eta) - u / eta - 1)` of `u = target - value` (XQL, arXiv:2301.02328).

    Its mean is least at the value `eta log E[exp(target / eta)]`, so that samples do without a sum over the vocabulary;
    at infinity it is `u^2 / 2`.
    errors: any shape, in reward units. clip: beyond `u / eta = clip` the loss goes on along its tangent, so that one
    sample's gradient is at most `eta (exp(clip) - 1)`. Returns losses and where they are clipped, both like `errors`.
    """
    if math.isinf(temperature):
        return 0.5 * errors**2, torch.zeros_like(errors)
    scaled = errors / temperature
    inside = scaled.clamp(max=clip)
    # The difference of two nearly equal numbers where errors are small beside the temperature; there, its series.
    loss = torch.where(inside.abs() < 1e-2, inside**2 / 2 + inside**3 / 6, torch.expm1(inside) - inside)
    loss = loss + math.expm1(clip) * (scaled - inside)
    return temperature**2 * loss, (scaled > clip).to(errors.dtype)


def linex_clip(bounds: tuple[float, float], temperature: float) -> float:
    """The range of the rewards in temperatures, from 1 to 20: no error between them is beyond it.

    With a lower one, rewards that are rarer than about its exp(-clip) hardly count: clipped at 5, the loss at
    temperature .1 of a reward of 1 that one sample in 1,000 gets is least at .016 instead of .314.
    bounds: smallest and largest reward.
    """
    if math.isinf(temperature):
        return 1.0  # nothing is clipped there
    return min(max((bounds[1] - bounds[0]) / temperature, 1.0), 20.0)


def value_advantages(rewards: Tensor, values: Tensor, mask: Tensor, lam: float | Tensor) -> Tensor:
    """`A_t = sum_{l >= t} lam^(l - t) delta_l`, `delta_l = V_{l+1} - V_l`, at the last state `R - V_l`.

    t + 1 is the next position that counts. rewards: `(B,)`. values, mask: `(B, T)`. lam: a number or `(B,)`.
    Returns `(B, T)`, 0 off the mask.
    """
    return gae(rewards[:, None] * last_token(mask), values * mask, mask, 1.0, lam)[0]


def root_mean_square(values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce) -> Tensor:
    """Over the tokens that count, of all processes. values, mask: `(B, T)`. Returns a scalar."""
    return masked_mean(values**2, mask, total).sqrt()


def correlation(first: Tensor, second: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce) -> Tensor:
    """Pearson's, over the tokens that count; 0 where one of them does not vary. All `(B, T)`. Returns a scalar."""
    a, b = (x - masked_mean(x, mask, total) for x in (first, second))
    both, one, other = (masked_mean(x, mask, total) for x in (a * b, a**2, b**2))
    return torch.where(one * other > 0, both / (one * other).clamp(min=1e-24).sqrt(), torch.zeros_like(both))
