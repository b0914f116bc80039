"""Importance weights of completions that an earlier policy sampled, and how many samples they are worth."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_trl_ext.functional.policy_gradient import no_reduce

LEVELS = ("token", "sequence", "geometric")
BOUNDS = ("truncate", "mask")
LARGEST = 20.0  # of a log ratio, so that no ratio overflows


def importance_ratios(logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """`pi / mu` of completions that mu, the behaviour policy, sampled.

    With `d_t = log pi(y_t) - log mu(y_t)`: token `exp(d_t)` (Espeholt et al., arXiv:1802.01561, biased); sequence
    `exp(sum_t d_t)`, the only unbiased one, of variance exponential in length; geometric `exp(mean_t d_t)` (GSPO,
    arXiv:2507.18071).
    logprobs, behaviour_logprobs, mask: `(B, T)`, nats. Returns `(B, T)` for token, 1 where mask is 0; `(B,)` else, 1
    for a row without tokens. Raises ValueError for another level.
    """
    differences = torch.where(mask.bool(), logprobs - behaviour_logprobs, 0.0)  # (B, T)
    if level == "token":
        logs = differences
    elif level == "sequence":
        logs = differences.sum(dim=1)
    elif level == "geometric":
        logs = differences.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    else:
        raise ValueError(f"is_level={level}: allowed are {', '.join(LEVELS)}.")
    return logs.clamp(-LARGEST, LARGEST).exp()


def bounded(ratios: Tensor, mode: str, cap: float, floor: float = 0.0) -> Tensor:
    """Ratios kept in [floor, cap]: `truncate` moves those outside to the bound, `mask` sets them to 0 (IcePop).

    ratios: any shape. floor <= 1 <= cap, so that on-policy samples keep weight 1. Raises ValueError for another mode.
    """
    if mode == "truncate":
        return ratios.clamp(min=floor, max=cap)
    if mode == "mask":
        return torch.where((ratios >= floor) & (ratios <= cap), ratios, 0.0)
    raise ValueError(f"is_mode={mode}: allowed are {' and '.join(BOUNDS)}.")


def tapered(weights: Tensor, advantages: Tensor) -> Tensor:
    """TOPR (Le Roux et al., arXiv:2503.14286): 1 for rows with `A >= 0`, `min(w, 1)` for the others.

    weights: `(B,)` or `(B, T)`. advantages: `(B,)`.
    """
    good = (advantages >= 0).view(-1, *[1] * (weights.dim() - 1))
    return torch.where(good, 1.0, weights.clamp(max=1.0))


def weighted_reference(reference_logprobs: Tensor, logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """Reference log-probs with which the KL term of a token that mu, the behaviour policy, sampled is weighted.

    GRPO's term is `k3(d) = e^d - d - 1` with `d = log ref(y_t) - log pi(y_t)`. Where pi has come to avoid what mu
    sampled, `e^d` has no bound, and one token outweighs the batch. Its estimate under mu is `w k3(d)` with
    `w = pi / mu`, here at most 1, which is bounded: `w e^d = ref / mu`. Of what is returned, `log pi + d'` with
    `e^d' = 1 + w (e^d - 1)`, `k3(d')` has the gradient `w (1 - e^d)` in `log pi`, and it is `log ref` where `w = 1`.
    All of one shape, nats.
    """
    shift = reference_logprobs - logprobs
    weight = (logprobs - behaviour_logprobs).clamp(max=0)  # its logarithm
    return logprobs + torch.log1p((shift + weight).clamp(max=LARGEST).exp() - weight.exp())


def effective_share(ratios: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = no_reduce) -> Tensor:
    """Effective sample size as a share of the samples, `(sum w)^2 / (n sum w^2)` (Kish); 1 where nothing counts.

    ratios, mask: any one shape. total: sums a `(3,)` tensor over processes. Returns a scalar in (0, 1].
    """
    mask = mask.to(ratios.dtype)
    weight, square, count = total(torch.stack([(ratios * mask).sum(), (ratios**2 * mask).sum(), mask.sum()]))
    return torch.where(count > 0, weight**2 / (count * square).clamp(min=1e-30), 1.0)
