"""TRL's RLOOTrainer with exact resume and, if asked for, a KL coefficient that is adapted to a target."""

from dataclasses import dataclass

import trl

from rlhf_trl_ext.trainers.parts.online import Online, OnlineArguments


@dataclass
class RLOOConfig(OnlineArguments, trl.RLOOConfig):
    """`trl.RLOOConfig` with a target for the divergence."""


class RLOOTrainer(Online, trl.RLOOTrainer):
    """`trl.RLOOTrainer` plus exact resume, rewards that are checked, and `beta` adapted to `args.kl_target`."""

    config_class = RLOOConfig
    takes_trl_args = True
