"""Configuration is checked against the signatures of what it builds, before anything expensive starts.

TRL's dataclasses say which keys exist and of which type; nothing is mirrored here. Where a field is a plain `str`
with a closed set of values, the set is read from the field's own metadata, help text or docstring.
"""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import json
import re
import typing

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_QUOTED = r"[`'\"]+(\w+)[`'\"]+"
_LISTED = re.compile(rf"(?:Supported|Possible) values are:?((?:\s*(?:and\s+)?{_QUOTED}(?: \(default\))?,?)+)\.")


class ConfigError(ValueError):
    """A mistake in the configuration, told in one sentence: key=value found, what is allowed, what to do."""


@contextlib.contextmanager
def as_config_error():
    """Refusals of data, models and files inside are told as one sentence, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def build(node: DictConfig, where: str, **extra):
    """`check` then Hydra's `instantiate`; `extra` are further keyword arguments of the target.

    where: the node's key in the configuration, for messages. Raises ConfigError.
    """
    node = OmegaConf.merge(node, extra)
    check(node, where)
    try:
        return instantiate(node, _convert_="all")
    except Exception as error:  # Hydra wraps what a constructor raises; only its refusals become sentences
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | TypeError):
            told = " ".join(str(cause).split())
            named = [
                f".{k}={v}" for k, v in node.items() if isinstance(v, str) and re.match(rf"{re.escape(v)}\b", told)
            ]
            raise ConfigError(f"{where}{''.join(named[:1])}: {told}") from error
        raise


def check(node: DictConfig, where: str) -> None:
    """Check names, types and choices of every `_target_` node below `node`; ConfigError for the first mistake."""
    for key in sorted(OmegaConf.missing_keys(node)):
        key = key if key.startswith(f"{where}.") else f"{where}.{key}"
        raise ConfigError(f"{key} has no value: give {key}=<value>.")
    _check(OmegaConf.to_container(node, resolve=True), where)


def _check(node, where: str) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check(item, f"{where}[{index}]")
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        _check(value, f"{where}.{key}")
    if "_target_" not in node:
        return
    target = get_object(node["_target_"])
    types, open_ended = parameters(target)
    for key, value in node.items():
        if key in _HYDRA_KEYS or _has_target(value):
            continue
        name = f"{where}.{key}"
        if key not in types and not open_ended:
            close = difflib.get_close_matches(key, types, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"allowed are {', '.join(sorted(types))}."
            raise ConfigError(f"{name}={value}: {target.__name__} has no such argument; {hint}")
        if key in types:
            _check_type(name, value, types[key])
            _check_choice(name, value, choices(target, key))


def _has_target(value) -> bool:
    """Whether a value becomes an object only when it is instantiated."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, dict) and "_target_" in value) or any(map(_has_target, children))


def parameters(target) -> tuple[dict[str, typing.Any], bool]:
    """Names and annotations of a callable's parameters, and whether it takes any other keyword."""
    signature = inspect.signature(target).parameters
    hinted = target if dataclasses.is_dataclass(target) or not inspect.isclass(target) else target.__init__
    try:
        hints = typing.get_type_hints(hinted)
    except NameError:  # annotations that exist for type checkers only
        hints = {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    return {n: hints.get(n, typing.Any) for n, p in signature.items() if p.kind is not p.VAR_KEYWORD}, open_ended


def _check_type(name: str, value, annotation) -> None:
    # TRL and transformers convert a lone string to a list, and true or false to the word that they mean.
    if (isinstance(value, str) and annotation == list[str]) or (
        isinstance(value, bool) and str in (typing.get_args(annotation) or (annotation,))
    ):
        return
    numeric = set(typing.get_args(annotation) or (annotation,)) - {type(None)} <= {int, float, bool}
    strict = isinstance(value, str) and numeric  # "1" would pass as a number and stay a string
    config = None if dataclasses.is_dataclass(annotation) else ConfigDict(arbitrary_types_allowed=True)
    try:
        TypeAdapter(annotation, config=config).validate_python(value, strict=strict)
    except ValidationError as error:
        allowed = re.sub(r"<class '([\w.]+)'>", r"\1", str(annotation)).replace("typing.", "")
        raise ConfigError(f"{name}={value}: {allowed} is needed ({error.errors()[0]['msg'].lower()}).") from None


def _check_choice(name: str, value, allowed: tuple[str, ...]) -> None:
    if not allowed or value is None:
        return
    for item in value if isinstance(value, list) else [value]:
        if str(item) not in allowed:
            raise ConfigError(f"{name}={item}: allowed are {', '.join(allowed)}.")


@functools.cache
def choices(target, key: str) -> tuple[str, ...]:
    """The closed set of values of a string field, or () when none is stated by the dataclass itself."""
    field = getattr(target, "__dataclass_fields__", {}).get(key)
    if field is None:
        return ()
    if field.metadata.get("choices"):
        return tuple(map(str, field.metadata["choices"]))
    listed = _LISTED.search(field.metadata.get("help") or "")
    if listed:
        return tuple(re.findall(_QUOTED, listed.group(1)))
    # A bulleted list in the class docstring: the values stand before each bullet's colon.
    section = re.search(rf"\n {{8}}{key} \(.*?(?=\n {{8}}\w+ \(|\Z)", target.__doc__ or "", re.DOTALL)
    if section is None or not re.search(r"values are:\s+- ", section.group(0)):
        return ()
    heads = re.findall(r"\n\s+- (.*?):", section.group(0))
    return tuple(value for head in heads for value in re.findall(r"`\"?(\w+)\"?`", head))


def as_json(node) -> str:
    """A configuration as canonical JSON (sorted keys, resolved), for fingerprints and records."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    return json.dumps(node, sort_keys=True, default=str)
