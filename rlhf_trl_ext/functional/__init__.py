"""Pure tensor mathematics: torch only, no trainer, no files."""

from rlhf_trl_ext.functional.advantages import gae, length_adaptive_lambda
from rlhf_trl_ext.functional.importance import (
    bounded,
    effective_share,
    importance_ratios,
    tapered,
    weighted_reference,
)
from rlhf_trl_ext.functional.kl import kl_estimate
from rlhf_trl_ext.functional.losses import clipped_value_loss, explained_variance, policy_statistics
from rlhf_trl_ext.functional.masking import last_token, masked_mean, masked_variance, whiten, with_phantom
from rlhf_trl_ext.functional.value_iteration import root_mean_square, segment_starts, value_advantages
from rlhf_trl_ext.functional.value_statistics import Reliability, group_statistics, value_statistics

__all__ = [
    "Reliability",
    "bounded",
    "clipped_value_loss",
    "effective_share",
    "explained_variance",
    "gae",
    "group_statistics",
    "importance_ratios",
    "kl_estimate",
    "last_token",
    "length_adaptive_lambda",
    "masked_mean",
    "masked_variance",
    "policy_statistics",
    "root_mean_square",
    "segment_starts",
    "tapered",
    "value_advantages",
    "value_statistics",
    "weighted_reference",
    "whiten",
    "with_phantom",
]
