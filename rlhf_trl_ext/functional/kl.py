"""Estimates of the divergence from a reference, and the controller of its coefficient."""

import torch
from torch import Tensor

ESTIMATORS = ("k1", "k3")


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
