"""RLHF on Hugging Face TRL: what TRL does not have, as thin as it can be.

`from rlhf_trl_ext import PPOTrainer, PPOConfig` and the other names below work as in TRL's quickstart. They are loaded
when they are first asked for, so that importing the package is quick.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "trainers.sft": ("SFTTrainer",),
    "trainers.reward": ("RewardTrainer",),
    "trainers.dpo": ("DPOTrainer",),
    "trainers.kto": ("KTOTrainer",),
    "trainers.soft_dpo": ("SoftDPOTrainer",),
    "trainers.soft_reward": ("SoftRewardTrainer",),
    "trainers.grpo": ("GRPOTrainer", "GRPOConfig"),
    "trainers.rloo": ("RLOOTrainer", "RLOOConfig"),
    "trainers.ppo": ("PPOTrainer", "PPOConfig"),
    "trainers.grpo_offpolicy": ("OffPolicyGRPOTrainer", "OffPolicyGRPOConfig"),
    "trainers.grpo_vi": ("GRPOVITrainer", "GRPOVIConfig"),
    "callbacks.stability": ("StabilityMonitor",),
    "callbacks.profiling": ("Profiler",),
    "rewards.model": ("RewardModel",),
    "rewards.ensemble": ("RewardEnsemble",),
}
_OWNERS = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_OWNERS)


def __getattr__(name: str):
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"{__name__}.{_OWNERS[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
