"""TRL's RLOOTrainer with exact resume."""

import trl

from rlhf_trl_ext.trainers.parts.resume import ExactResume


class RLOOTrainer(ExactResume, trl.RLOOTrainer):
    """`trl.RLOOTrainer` with only its checkpoints completed."""
