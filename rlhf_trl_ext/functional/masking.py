"""Means, spreads and last positions over the tokens that count (mask = 1)."""

from collections.abc import Callable

import torch
from torch import Tensor


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
