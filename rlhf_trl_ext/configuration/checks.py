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
import logging
import operator
import re
import types
import typing
from collections.abc import Iterator

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rlhf_trl_ext.configuration import ranges
from rlhf_trl_ext.configuration.values import formatted

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # what it logs of a missing object, it raises as well
_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_QUOTED = r"[`'\"]+(\w+)[`'\"]+"
_LISTED = re.compile(rf"(?:Supported|Possible) values are:?((?:\s*(?:and\s+)?{_QUOTED}(?: \(default\))?,?)+)\.")


class ConfigError(ValueError):
    """Mistakes in the configuration, a sentence each: key=value found, what is allowed, what to do."""


@contextlib.contextmanager
def as_config_error(where: str = ""):
    """Turn ValueError and OSError of data, models and files into ConfigError: one sentence, no traceback.

    where: the key of what is read inside, for messages that begin with one of its arguments.
    """
    try:
        yield
    except (ConfigError, HydraException):  # a sentence already; a choice that does not exist, which is an OSError
        raise
    except TemplateError as error:
        raise ConfigError(
            f"the tokenizer's chat template refuses a conversation of the data ({error}): give "
            "model.chat_template=<file.jinja>, or data without it."
        ) from error
    except (ValueError, OSError, ImportError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{where}.{message}" if where and re.match(r"\w+=", message) else message) from error


def build(node: DictConfig, where: str, **extra):
    """`check` then Hydra's `instantiate`; `extra` are further keyword arguments of the target.

    where: the node's key in the configuration, for messages. Raises ConfigError.
    """
    check(OmegaConf.merge(node, {key: value for key, value in extra.items() if key not in ranges.ELSEWHERE}), where)
    node = OmegaConf.merge(node, extra)
    try:
        return instantiate(node, _convert_="all")
    except Exception as error:  # Hydra wraps what a constructor raises; only its refusals become sentences
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | TypeError | OSError | ImportError):
            raise ConfigError(_with_key(" ".join(str(cause).split()), node, where)) from error
        raise


def _with_key(message: str, node: DictConfig, where: str) -> str:
    """What a constructor refuses, behind the whole key and value of the argument that it names, where it names one."""
    values = {k: v for k, v in OmegaConf.to_container(node, resolve=True).items() if k not in _HYDRA_KEYS}
    name = re.match(r"(?:model\.)?(\w+)(?==)", message)
    if name and name[1] in values:  # a class of this project, which gives the value as well
        return f"{where}.{message.removeprefix('model.')}"
    quoted = [key for key, value in values.items() if isinstance(value, str) and message.startswith(value) and value]
    named = [
        word for word in re.findall(r"[a-z]+_\w+", message) if word in values and not isinstance(values[word], dict)
    ]
    key = next(iter(quoted + named), None)
    return f"{where}: {message}" if key is None else f"{where}.{key}={formatted(values[key])}: {message}"


def check(node: DictConfig, where: str) -> None:
    """Check names, types, ranges and choices of every `_target_` node below `node`; ConfigError with all mistakes."""
    errors = problems(node, where)
    if errors:
        raise ConfigError(listed(errors))


def listed(errors: list[str]) -> str:
    """One mistake as a sentence, several as a numbered list, none of them twice."""
    errors = list(dict.fromkeys(errors))
    if len(errors) == 1:
        return errors[0]
    return f"{len(errors)} mistakes:" + "".join(f"\n  {number}. {error}" for number, error in enumerate(errors, 1))


def problems(node: DictConfig, where: str, missing: bool = True) -> list[str]:
    """A sentence for every mistake at or below `node`. missing: whether a value that has to be given is one."""
    if not OmegaConf.is_config(node):
        return [f"{where}={node}: a group of settings is needed, {where}.<name>=<value>."]
    keys = [re.sub(r"\[(\d+)\]", r".\1", key) for key in sorted(OmegaConf.missing_keys(node))]
    if node._get_parent() is None:  # else the keys are whole, and lead to where an interpolation leads
        keys = [key if key.startswith(f"{where}.") else f"{where}.{key}" for key in keys]
    errors = [f"{key} has no value: give {key}=<value>." for key in keys if missing]
    return errors or list(_problems(OmegaConf.to_container(node, resolve=True), where))


def _problems(node, where: str) -> Iterator[str]:
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _problems(item, f"{where}[{index}]")
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        yield from _problems(value, f"{where}.{key}")
    if "_target_" not in node:
        return
    try:
        target = get_object(node["_target_"])
        known, open_ended = parameters(target)
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        yield f"{where}._target_={node['_target_']}: no such class or function ({reason})."
        return
    for key, value in node.items():
        if key in _HYDRA_KEYS or _has_target(value) or value == "???":
            continue
        name = f"{where}.{key}"
        if key not in known and not open_ended:
            close = difflib.get_close_matches(key, known, n=3)
            allowed = f"allowed are {', '.join(sorted(known))}." if len(known) <= 40 else "see its documentation."
            hint = f"did you mean {' or '.join(close)}?" if close else allowed
            renamed = getattr(target, "renamed", {}).get(key)  # names of other libraries
            hint = f"{renamed}." if renamed else hint
            yield f"{name}={formatted(value)}: {target.__name__} has no such argument; {hint}"
        elif key in known:
            yield from filter(None, [_wrong(target, key, name, value, known[key])])


def _wrong(target, key: str, name: str, value, annotation) -> str | None:
    """The first thing that is wrong with one argument, or None."""
    if message := ranges.elsewhere(target, key, value):
        return f"{name}={formatted(value)}: {message}"
    if isinstance(value, bool) and ranges.is_training_arguments(target) and str in _alternatives(annotation):
        return None  # TRL and transformers take true and false for the word that they mean
    if message := _wrong_type(name, value, annotation) or _wrong_choice(name, value, choices(target, key)):
        return message
    message = ranges.refusal(target, key, value)
    return f"{name}={formatted(value)}: {message}." if message else None


def _has_target(value) -> bool:
    """Whether a value becomes an object only when it is instantiated."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, dict) and "_target_" in value) or any(map(_has_target, children))


def parameters(target) -> tuple[dict[str, typing.Any], bool]:
    """Names and annotations of a callable's parameters, and whether it takes any other keyword."""
    try:
        signature = inspect.signature(target).parameters
    except ValueError:  # some of Python's own classes have none
        return {}, True
    hinted = target if dataclasses.is_dataclass(target) or not inspect.isclass(target) else target.__init__
    try:
        hints = typing.get_type_hints(hinted, include_extras=True)
    except NameError:  # annotations that exist for type checkers only
        hints = {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    return {n: hints.get(n, typing.Any) for n, p in signature.items() if p.kind is not p.VAR_KEYWORD}, open_ended


def _wrong_type(name: str, value, annotation) -> str | None:
    plain = _plain(annotation)
    if isinstance(value, str) and plain == list[str]:  # TRL and transformers make a list of it
        return None
    kinds = _alternatives(annotation)
    allowed = re.sub(r"<class '([\w.]+)'>", r"\1", str(plain)).replace("typing.", "")
    if isinstance(value, bool) and kinds <= {int, float}:  # true would pass as 1
        return f"{name}={formatted(value)}: {allowed} is needed, and true and false are no numbers."
    if isinstance(value, float) and kinds == {int}:  # 1.0 would pass as 1 and stay a float
        return f"{name}={formatted(value)}: {allowed} is needed, a whole number."
    # "1" would pass as a number and stay a string; 1 and "no" as true and false, and "off" would stay true.
    strict = (isinstance(value, str) and kinds <= {int, float, bool}) or kinds == {bool}
    config = None if dataclasses.is_dataclass(plain) else ConfigDict(arbitrary_types_allowed=True)
    try:
        TypeAdapter(annotation, config=config).validate_python(value, strict=strict)
    except ValidationError as error:
        return f"{name}={formatted(value)}: {allowed} is needed ({error.errors()[0]['msg'].lower()})."
    return None


def _alternatives(annotation) -> set:
    """The types of a union, without None; of another type, that type."""
    plain = _plain(annotation)
    return set(typing.get_args(plain) or (plain,)) - {type(None)}


def _plain(annotation):
    """A type without the ranges that its annotation states, for messages and comparisons."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_plain, typing.get_args(annotation)))
    return annotation


def _wrong_choice(name: str, value, allowed: tuple[str, ...]) -> str | None:
    if not allowed or value is None:
        return None
    wrong = [item for item in (value if isinstance(value, list) else [value]) if str(item) not in allowed]
    return f"{name}={wrong[0]}: allowed are {', '.join(allowed)}." if wrong else None


@functools.cache
def choices(target, key: str) -> tuple[str, ...]:
    """The closed set of values of a string field, or () when none is stated by the dataclass itself."""
    field = getattr(target, "__dataclass_fields__", {}).get(key)
    if field is None:
        return ()
    if key in ranges.CHOICES:
        return ranges.CHOICES[key]
    if field.metadata.get("choices"):
        return tuple(map(str, field.metadata["choices"]))
    listed = _LISTED.search(field.metadata.get("help") or "")
    if listed:
        return tuple(re.findall(_QUOTED, listed.group(1)))
    # A bulleted list in the docstring of the class or of one before it: the values stand before each bullet's colon.
    texts = [cls.__doc__ or "" for cls in target.__mro__]
    matches = (re.search(rf"\n {{8}}{key} \(.*?(?=\n {{8}}\w+ \(|\Z)", text, re.DOTALL) for text in texts)
    section = next(filter(None, matches), None)
    if section is None or not re.search(r"values are:\s+- ", section.group(0)):
        return ()
    heads = re.findall(r"\n\s+- (.*?):", section.group(0))
    return tuple(value for head in heads for value in re.findall(r"`\"?(\w+)\"?`", head))


def as_json(node) -> str:
    """A configuration as canonical JSON (sorted keys, resolved), for fingerprints and records."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    return json.dumps(node, sort_keys=True, default=str)
