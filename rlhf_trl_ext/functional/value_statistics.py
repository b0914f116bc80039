"""How good a critic of completions is, and how its advantages differ from GRPO's."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_trl_ext.functional.policy_gradient import explained_variance, last_token, masked_mean, no_reduce
from rlhf_trl_ext.functional.value_iteration import correlation

DECAY = 0.9  # of the running moments, per batch
SCALE_DECAY = 0.99  # of the running scale of advantages
DOUBT = 0.05  # trust below which advantages are GRPO's for all that matters


class Reliability:
    """Running evidence of what the critic knows, from batches that it has not seen yet; equal in all processes.

    `noise` is the standard deviation of `R - V(s_last)`: the part of a reward that the critic cannot foresee from the
    whole completion but its last token, be it noise or ignorance. `trust` is twice the squared correlation, within
    groups and over all prefixes, of R and V(s_t), at most 1: where all tokens of a completion count alike, a perfect
    critic foresees half of the differences on average over its prefixes, and one that knows the reward in the last of T
    states foresees 1 / T. Both are 0 before the first batch. Sums over batches decay by 0.9. `doubts` counts the last
    batches in a row, of those whose rewards differ within groups, that left `trust` below 0.05.

    `spread` is the range of a batch's rewards, or what is left of an earlier one's, which decays by 0.99. `scale` is
    the root mean square of the advantages over batches, which decay by 0.99, or that of the last one where it is
    larger. Of the last one alone, what is left when a policy is done, the critic's error, would be blown up to 1.
    """

    def __init__(self):
        self.low, self.high, self.spread = math.inf, -math.inf, 0.0  # of the rewards so far
        self.doubts = 0
        self.moments = torch.zeros(5, dtype=torch.float64)
        self.squares = torch.zeros(2, dtype=torch.float64)

    def observe(self, rewards: Tensor, values: Tensor, mask: Tensor, group_size: int) -> None:
        """rewards: `(B,)` of all processes, groups contiguous, NaN for none; values, mask: `(B, T)`, of their states.

        A row's states weigh as much together as another's.
        """
        rewards, values, mask = rewards.double().cpu(), values.double().cpu(), mask.double().cpu()
        scored = ~rewards.isnan()
        if not scored.any():
            return
        error = rewards - (values * last_token(mask)).sum(dim=1)
        error = error - error.nanmean()
        weights = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        gain, foreseen = (
            x.where(mask.bool() & scored[:, None], torch.nan).view(-1, group_size, mask.shape[1])
            for x in (rewards[:, None].expand_as(values), values)
        )
        gain, foreseen = ((x - x.nanmean(dim=1, keepdim=True)).view_as(mask) for x in (gain, foreseen))
        parts = (error**2, scored.double(), *(weights * x for x in (gain * foreseen, gain**2, foreseen**2)))
        self.moments = DECAY * self.moments + torch.stack([part.nansum() for part in parts])
        if gain.nan_to_num().any():
            self.doubts = self.doubts + 1 if self.trust < DOUBT else 0
        low, high = rewards[scored].min().item(), rewards[scored].max().item()
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.spread = max(high - low, SCALE_DECAY * self.spread)

    def bounds(self, rewards: Tensor) -> tuple[float, float]:
        """Smallest and largest of all rewards up to these: every soft value lies between. rewards: `(B,)`, as above."""
        known = rewards[~rewards.isnan()].tolist() + ([self.low, self.high] if self.low <= self.high else [])
        return (min(known), max(known)) if known else (-math.inf, math.inf)

    def scale(self, spread: Tensor) -> float:
        """What a batch's advantages are divided by. spread: their root mean square, over all processes."""
        self.squares = SCALE_DECAY * self.squares + torch.tensor([spread.item() ** 2, 1.0], dtype=torch.float64)
        return max(spread.item(), math.sqrt(self.squares[0] / self.squares[1]))

    @property
    def noise(self) -> float:
        """In reward units."""
        return math.sqrt(self.moments[0] / self.moments[1].clamp(min=1))

    @property
    def trust(self) -> float:
        """In [0, 1]."""
        _, _, both, gain, foreseen = self.moments.tolist()
        return min(1.0, 2 * max(both, 0.0) ** 2 / (gain * foreseen)) if gain * foreseen > 0 else 0.0

    def temperature(self) -> float:
        """`max(0.2 spread, 2 noise)`; infinity while all rewards were equal.

        Noise of standard deviation s leaves `exp(-s^2 / eta^2)` of the sample size of a mean of exp(R / eta): at twice
        the noise 78 %, at a fifth of it nothing.
        """
        return max(0.2 * self.spread, 2 * self.noise) if self.spread > 0 else math.inf

    def state(self) -> dict:
        """The evidence so far, for a checkpoint: plain numbers and a tensor."""
        numbers = {"low": self.low, "high": self.high, "spread": self.spread, "doubts": self.doubts}
        return {**numbers, "moments": self.moments, "squares": self.squares}

    def load_state(self, state: dict) -> None:
        """Take over what `state` returned."""
        self.low, self.high, self.spread = state["low"], state["high"], state["spread"]
        self.doubts = state["doubts"]
        self.moments, self.squares = state["moments"], state["squares"]


def group_statistics(rewards: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Mean of the rewards of a row's group, and whether they are all equal.

    rewards: `(B,)`, groups contiguous; NaN, no reward, changes neither of them. Returns `(B,)` each.
    """
    grouped = rewards.view(-1, group_size)  # (P, G)
    means = grouped.nanmean(dim=1, keepdim=True).nan_to_num()
    grouped = torch.where(grouped.isnan(), means, grouped)
    statistics = (means[:, 0], grouped.amax(1) == grouped.amin(1))
    return tuple(of_group.repeat_interleave(group_size) for of_group in statistics)


def thirds(mask: Tensor) -> Tensor:
    """Which third of its row's tokens a token belongs to: 0, 1 or 2. mask: `(B, T)`; returns `(B, T)` long."""
    place = mask.long().cumsum(1) - 1
    return (3 * place.clamp(min=0)) // mask.long().sum(1, keepdim=True).clamp(min=1)


def value_statistics(
    values: Tensor,
    rewards: Tensor,
    advantages: Tensor,
    group_advantages: Tensor,
    mask: Tensor,
    means: Tensor,
    flat: Tensor,
    total: Callable[[Tensor], Tensor] = no_reduce,
) -> dict[str, Tensor]:
    """Scalars over all processes, as docs and dashboards name them.

    explained_variance: `1 - Var(R - V) / Var(R)`, also of the first and the last third of the completions; too low for
    a soft value, whose mean is not R's. value_root_minus_group_mean: of the first states. signal_zero_std_groups:
    the share of tokens with `|A| > 0.1` in groups whose rewards are all equal, where GRPO has none.
    correlation_with_grpo: of the advantages where GRPO has one.

    values, advantages (relative to their root mean square), group_advantages, mask: `(B, T)`. rewards, means (of the
    row's group): `(B,)`. flat: `(B,)` bool, rows of such groups.
    """
    returns, part = rewards[:, None].expand_as(values), thirds(mask)
    root = last_token(mask.flip(1)).flip(1)
    quiet = mask * flat[:, None]
    lively = mask * (~flat)[:, None]
    return {
        "explained_variance": explained_variance(values, returns, mask, total),
        "explained_variance_first_third": explained_variance(values, returns, mask * (part == 0), total),
        "explained_variance_last_third": explained_variance(values, returns, mask * (part == 2), total),
        "value_mean": masked_mean(values, mask, total),
        "value_root_minus_group_mean": masked_mean(values - means[:, None], root, total),
        "signal_zero_std_groups": masked_mean((advantages.abs() > 0.1).to(values.dtype), quiet, total),
        "correlation_with_grpo": correlation(advantages, group_advantages, lively, total),
    }
