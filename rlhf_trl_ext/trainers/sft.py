"""TRL's SFTTrainer with exact resume."""

import trl

from rlhf_trl_ext.trainers.parts.resume import ExactResume


class SFTTrainer(ExactResume, trl.SFTTrainer):
    """`trl.SFTTrainer` with only its checkpoints completed."""
