"""Configurations as the launchers get them, for code that trains without a command line."""

from collections.abc import Iterable

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.configuration.overrides import keep, opened


def compose_config(name: str, overrides: Iterable[str] = ()) -> DictConfig:
    """The root configuration `conf/<name>.yaml` with Hydra overrides; keys may be added to what is returned."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [opened(override) for override in overrides]
        config = compose(name, overrides=overrides)
        if overrides:
            keep(config, overrides, lambda groups: compose(name, overrides=groups))
    OmegaConf.set_struct(config, False)
    return config
