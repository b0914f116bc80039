"""Values of the keys that the launchers read themselves, checked against `settings.py`, and as messages show them."""

import difflib
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, InterpolationToMissingValueError
from pydantic import TypeAdapter, ValidationError

from rlhf_trl_ext.configuration.settings import OF_LAUNCHER, SHARED
from rlhf_trl_ext.configuration.value_types import Built

LONGEST = 200  # characters of a value in a message
NEEDED = {name: ("args", "model", "dataset", "trainer") for name in ("train", "plan")}


def refusals(config: DictConfig, launcher: str) -> list[str]:
    """One sentence for every key of `launcher` whose value has the wrong type or lies outside its range."""
    types = SHARED | OF_LAUNCHER.get(launcher, {})
    errors = [
        f"{key} is missing: {'arguments are given one by one, ' if key == 'args' else ''}{key}.<name>=<value>."
        for key in NEEDED.get(launcher, ())
        if not OmegaConf.is_config(OmegaConf.select(config, key))
    ]
    absent = [error.partition(" ")[0] for error in errors]
    for key, kind in types.items():
        if key in absent:
            continue
        try:
            errors += _refusal(key, _value(config, key), kind) if _present(config, key) else []
        except InterpolationToMissingValueError:  # of a value that has none yet, which is refused where it is needed
            continue
        except InterpolationResolutionError as error:
            errors.append(f"{key}: its ${{...}} cannot be resolved ({' '.join(str(error).split())}); give a value.")
    return errors + list(_unknown(config, types))


def _present(config: DictConfig, key: str) -> bool:
    """Whether the key is there with a value of its own; one that follows from a missing one is not."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_dict(node) or name not in node or OmegaConf.is_missing(node, name):
        return False
    return OmegaConf.select(config, key, throw_on_missing=False) is not None or node[name] is None


def _value(config: DictConfig, key: str):
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _refusal(key: str, value, kind) -> list[str]:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as refused:
        error = refused.errors()[0]
        if len(formatted(value)) > LONGEST and isinstance(value, dict):  # the part of it that is wrong
            value = error["input"]
            key = ".".join(map(str, (key, *error["loc"])))
        setting = key if error["type"] == "value_error" and kind is Built else f"{key}={formatted(value)}"
        return [f"{setting}: {_in_words(error)}{' (or null)' if _optional(kind) else ''}."]
    return []


def _in_words(error: dict) -> str:
    """A pydantic error in the project's wording."""
    limit = next(iter(error.get("ctx", {}).values()), None)
    limit = f"{limit:g}" if isinstance(limit, float) else limit
    words = {
        "bool_type": "true or false is needed",
        "int_type": "a whole number is needed",
        "float_type": "a number is needed",
        "string_type": "a word is needed",
        "list_type": "a list is needed, [a,b]",
        "dict_type": "names and values are needed, {a: b}",
        "too_short": "at least one is needed",
        "string_too_short": "a word is needed",
        "greater_than": f"above {limit} is needed",
        "greater_than_equal": f"at least {limit} is needed",
        "multiple_of": f"a multiple of {limit} is needed",
        "less_than": f"below {limit} is needed",
        "less_than_equal": f"at most {limit} is needed",
        "literal_error": f"allowed are {limit}",
    }
    message = error["msg"].removeprefix("Value error, ")
    return words.get(error["type"], f"{message[0].lower()}{message[1:]}")


def _optional(kind) -> bool:
    return type(None) in getattr(kind, "__args__", ())


def formatted(value) -> str:
    """A value as the command line has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {formatted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(formatted, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _unknown(config: DictConfig, types: dict[str, Any]) -> Iterator[str]:
    """Unknown keys below `samples`, `pairs` and similar sections."""
    for parent in dict.fromkeys(key.rpartition(".")[0] for key in types if "." in key):
        node = OmegaConf.select(config, parent)
        known = [key.rpartition(".")[2] for key in types if key.startswith(f"{parent}.")]
        if parent in ("held_out", "budget", "args", "reward") or not OmegaConf.is_dict(node):
            continue
        for name in set(node) - set(known):
            close = difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"allowed are {', '.join(known)}."
            yield f"{parent}.{name}={formatted(node[name])}: no such key; {hint}"
