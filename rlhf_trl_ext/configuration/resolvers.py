"""Words that configurations compute with, such as `${by_lora:1e-6,1e-5}`."""

from omegaconf import DictConfig, OmegaConf


def by_lora(full, lora, *, _root_: DictConfig):
    """A value for training whole models, and one for training adapters (model.use_peft=true)."""
    return lora if OmegaConf.select(_root_, "model.use_peft", default=False) else full


def register() -> None:
    """Make the words known to OmegaConf."""
    OmegaConf.register_new_resolver("by_lora", by_lora, replace=True)
