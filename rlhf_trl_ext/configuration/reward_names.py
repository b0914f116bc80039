"""Functions by name: `'reward.functions=[my_module.my_function,accuracy_reward]'`, tools and environments of TRL."""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
TRL = re.compile(r"[a-z_]+_reward")
REFERENCE = "hydra.utils.get_method"


# Where functions are named: lists of them, and one or a mapping of them.
LISTS = ("reward.functions", "held_out.functions", "trainer.tools")
NAMED = "trainer.environment_factory"


def resolve_names(config: DictConfig) -> None:
    """Replace names of functions in `LISTS` and `NAMED` by references that Hydra builds, in place.

    A dotted name whose first part is a module that Python finds is a function; a word like `accuracy_reward` is one of
    `trl.rewards`. Everything else, and whatever exists as a path, is a reward model. Nothing is imported.
    """
    for key in LISTS:
        functions = OmegaConf.select(config, key, throw_on_missing=False)
        if OmegaConf.is_list(functions):
            _resolve(functions, range(len(functions)))
    factory = OmegaConf.select(config, NAMED, throw_on_missing=False)
    if OmegaConf.is_dict(factory) and "_target_" not in factory:
        _resolve(factory, list(factory))
    elif isinstance(factory, str):
        _resolve(config.trainer, ["environment_factory"])


def _resolve(node: DictConfig | ListConfig, keys: Iterable) -> None:
    for key in keys:
        if not node._get_node(key)._is_missing() and isinstance(node[key], str) and (path := _function(node[key])):
            node[key] = {"_target_": REFERENCE, "path": path}


def _function(name: str) -> str | None:
    if Path(name).expanduser().exists():
        return None
    if TRL.fullmatch(name):
        return f"trl.rewards.{name}"
    if DOTTED.fullmatch(name) and importlib.util.find_spec(name.partition(".")[0]) is not None:
        return name
    return None
