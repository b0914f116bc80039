"""Configurations as the launchers get them, for code that trains without a command line."""

from collections.abc import Iterable

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.folders import CONF


def compose_config(name: str, overrides: Iterable[str] = ()) -> DictConfig:
    """The root configuration `conf/<name>.yaml` with Hydra overrides; keys may be added to what is returned."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides=list(overrides))
    OmegaConf.set_struct(config, False)
    return config
