"""TRL's KTOTrainer with exact resume."""

import trl

from rlhf_trl_ext.trainers.parts.resume import ExactResume


class KTOTrainer(ExactResume, trl.KTOTrainer):
    """`trl.KTOTrainer` with only its checkpoints completed."""
