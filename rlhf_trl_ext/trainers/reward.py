"""TRL's RewardTrainer with exact resume."""

import trl

from rlhf_trl_ext.trainers.parts.resume import ExactResume


class RewardTrainer(ExactResume, trl.RewardTrainer):
    """`trl.RewardTrainer` with only its checkpoints completed."""
