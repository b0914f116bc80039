"""TRL's GRPOTrainer with exact resume and, if asked for, a KL coefficient that is adapted to a target."""

from dataclasses import dataclass

import trl

from rlhf_trl_ext.trainers.parts.online import Online, OnlineArguments


@dataclass
class GRPOConfig(OnlineArguments, trl.GRPOConfig):
    """`trl.GRPOConfig` with a target for the divergence."""


class GRPOTrainer(Online, trl.GRPOTrainer):
    """`trl.GRPOTrainer` plus exact resume, rewards that are checked, and `beta` adapted to `args.kl_target`."""

    config_class = GRPOConfig
    takes_trl_args = True
