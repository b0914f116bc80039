"""Configurations as the launchers get them, for code that trains without a command line."""

from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"


def compose_config(name: str, overrides: Iterable[str] = ()) -> DictConfig:
    """The root configuration `conf/<name>.yaml` with Hydra overrides; keys may be added to what is returned."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides=list(overrides))
    OmegaConf.set_struct(config, False)
    return config
