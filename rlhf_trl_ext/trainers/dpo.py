"""TRL's DPOTrainer with exact resume."""

import trl

from rlhf_trl_ext.trainers.parts.resume import ExactResume


class DPOTrainer(ExactResume, trl.DPOTrainer):
    """`trl.DPOTrainer` with only its checkpoints completed."""
