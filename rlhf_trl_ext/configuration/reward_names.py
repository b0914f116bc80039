"""Reward functions by name: `'reward.functions=[my_module.my_function,accuracy_reward]'`."""

import importlib.util
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
TRL = re.compile(r"[a-z_]+_reward")
REFERENCE = "hydra.utils.get_method"


def resolve_names(config: DictConfig) -> None:
    """Replace names in `reward.functions` and `held_out.functions` by references that Hydra builds, in place.

    A dotted name whose first part is a module that Python finds is a function; a word like `accuracy_reward` is one of
    `trl.rewards`. Everything else, and whatever exists as a path, is a reward model. Nothing is imported.
    """
    for group in ("reward", "held_out"):
        functions = OmegaConf.select(config, f"{group}.functions", throw_on_missing=False)
        if not OmegaConf.is_list(functions):
            continue
        for index in range(len(functions)):
            if functions._get_node(index)._is_missing() or not isinstance(functions[index], str):
                continue
            if path := _function(functions[index]):
                functions[index] = {"_target_": REFERENCE, "path": path}


def _function(name: str) -> str | None:
    if Path(name).expanduser().exists():
        return None
    if TRL.fullmatch(name):
        return f"trl.rewards.{name}"
    if DOTTED.fullmatch(name) and importlib.util.find_spec(name.partition(".")[0]) is not None:
        return name
    return None
