"""Words that configurations compute with, such as `${by_lora:1e-6,1e-5}`."""

from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration import help


def by_lora(full, lora, *, _root_: DictConfig):
    """A value for training whole models, and one for training adapters (model.use_peft=true)."""
    return lora if OmegaConf.select(_root_, "model.use_peft", default=False) else full


def register() -> None:
    """Make the words known to OmegaConf."""
    for name, word in (("by_lora", by_lora), ("groups", help.groups), ("settings", help.settings)):
        OmegaConf.register_new_resolver(name, word, replace=True)
