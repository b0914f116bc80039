"""TRL's GRPOTrainer with exact resume and, if asked for, a KL coefficient that is adapted to a target."""

from dataclasses import dataclass, field

import trl

from rlhf_trl_ext.callbacks.kl_control import AdaptiveKL
from rlhf_trl_ext.trainers.parts.resume import ExactResume


@dataclass
class GRPOConfig(trl.GRPOConfig):
    """`trl.GRPOConfig` with a target for the divergence."""

    kl_target: float | None = field(default=None, metadata={"help": "Nats per sequence that beta is adapted to."})
    kl_horizon: float = 10_000


class GRPOTrainer(ExactResume, trl.GRPOTrainer):
    """`trl.GRPOTrainer` with only its checkpoints completed and `beta` adapted."""

    def __init__(self, model, reward_funcs=None, args=None, **kwargs):
        super().__init__(model, reward_funcs, args, **kwargs)
        if args.kl_target is not None:
            self.add_callback(AdaptiveKL(self, args.kl_target, args.kl_horizon))
