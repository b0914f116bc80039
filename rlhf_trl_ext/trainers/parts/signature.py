"""What a trainer's constructor takes, so that any of TRL's trainers can be built from one configuration."""

import inspect
from collections.abc import Iterable
from typing import Any

from rlhf_trl_ext.configuration.checks import ConfigError

# What asks for an argument, where it is not its namesake in the configuration.
ASKED_BY = {
    "peft_config": "model.use_peft=true",
    "quantization_config": "model.load_in_4bit=true or model.load_in_8bit=true",
    "eval_dataset": "evaluate=true or args.eval_strategy",
}
# What TRL gives a reward function beside the columns of the data.
FROM_TRAINER = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def accepted(trainer, offered: dict) -> dict:
    """The keyword arguments of `offered` that `trainer`, a class or a partial of one, takes.

    None is a default, and left out where there is no such argument. Raises ConfigError for anything else, and for an
    argument of the partial itself that the class lacks.
    """
    owner = getattr(trainer, "func", trainer)
    names = parameters(owner)
    if unknown := [name for name, value in getattr(trainer, "keywords", {}).items() if name not in names and value]:
        raise ConfigError(f"trainer.{unknown[0]}: {owner.__name__} has no argument {unknown[0]}; leave it out.")
    lacking = [name for name in offered if name not in names and offered[name] is not None]
    if lacking:
        arguments = "; ".join(ASKED_BY.get(name, name) for name in lacking)
        raise ConfigError(f"{arguments}: {owner.__name__} has no argument {' or '.join(lacking)}; leave it out.")
    return {name: value for name, value in offered.items() if name in names}


def check_columns(functions: Any, columns: Iterable[str]) -> None:
    """Raises ConfigError for a reward function, one of several or alone, that takes a column which the data lacks."""
    given = {*columns, *FROM_TRAINER}
    for function in functions if isinstance(functions, list | tuple) else [functions]:
        if not callable(function):
            continue
        own = inspect.signature(function).parameters.values()
        needed = [one.name for one in own if one.default is one.empty and one.kind not in OPEN]
        if lacking := [name for name in needed if name not in given]:
            name = getattr(function, "__name__", type(function).__name__)
            raise ConfigError(
                f"reward {name} needs a column {lacking[0]}, and the data set has {', '.join(columns)}: choose one "
                f"that has it, as dataset=gsm8k has solution, or name it, dataset.columns.{lacking[0]}=<column>."
            )


def parameters(owner: type) -> set[str]:
    """Names that a class's constructor takes, those that it hands on by `**kwargs` as well."""
    names = set()
    for base in owner.__mro__:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(base.__init__).parameters.values()
        names |= {one.name for one in own if one.kind is not one.VAR_KEYWORD}
        if all(one.kind is not one.VAR_KEYWORD for one in own):
            break
    return names - {"self"}
