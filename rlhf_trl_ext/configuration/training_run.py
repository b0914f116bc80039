"""What the checks of a training run look at."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError


def _deepspeed(path: str) -> dict:
    """Raises ConfigError where the file cannot be read."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"args.deepspeed={path}: no DeepSpeed configuration in JSON ({message}).") from error


class Run:
    """A configuration and what surrounds it: arguments with TRL's defaults, processes, DeepSpeed, devices."""

    def __init__(self, config: DictConfig):
        self.config = config
        self._defaults = get_object(config.args._target_).__dataclass_fields__
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        deepspeed = self.argument("deepspeed")
        content = deepspeed if deepspeed is None or isinstance(deepspeed, Mapping) else _deepspeed(deepspeed)
        self.zero = {} if content is None else content.get("zero_optimization", {})
        self.stage = self.zero.get("stage", 0)

    def argument(self, name: str, otherwise=None):
        """`args.<name>` as it is configured, else TRL's default, else `otherwise`."""
        if name in self.config.args:
            value = self.config.args[name]
            return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        default = self._defaults[name].default if name in self._defaults else otherwise
        return otherwise if type(default).__name__ == "_MISSING_TYPE" else default

    def model(self, name: str):
        return self.config.model.get(name)

    @property
    def online(self) -> bool:
        return "steps_per_generation" in self._defaults
