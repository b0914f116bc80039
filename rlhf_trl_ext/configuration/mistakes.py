"""Mistakes of the caller, answered in one sentence."""

import contextlib
import difflib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, HydraException, MissingConfigException
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException

from rlhf_trl_ext.configuration.credentials import redact
from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.stages.guard import Terminated


@contextlib.contextmanager
def report_user_errors():
    """End the process with one sentence for a mistake of the caller; TRACEBACK=1 shows where it was found."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        leave(128 + signal.SIGINT)
    except Terminated as end:
        leave(end.code)
    except Exception as error:
        message = sentence(error)
        _keep_for_elastic(redact(f"error: {message}" if message else f"{type(error).__name__}: {error}"))
        if message is None or os.environ.get("TRACEBACK") == "1":
            raise
        sys.exit(f"error: {redact(message)}")


def _keep_for_elastic(message: str) -> None:
    """Let torch's launcher, which is what prints last under `accelerate launch`, end with the reason."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        reason = {"message": " ".join(message.split()), "extraInfo": {"timestamp": int(time.time())}}
        Path(path).write_text(json.dumps({"message": reason}), encoding="utf-8")


def leave(code: int) -> NoReturn:
    """End this process at once: Python takes seconds to take down torch, and a scheduler may not wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def sentence(error: Exception) -> str | None:
    """A mistake of the caller in one sentence; None for any other exception, whose traceback is wanted."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_choice(*error.missing_cfg_file.rpartition("/")[::2], error.options)
    message = " ".join(str(error).split())
    if missing := re.search(r"Missing mandatory value: ([\w.]+)", message):
        return f"{missing.group(1)} has no value: give {missing.group(1)}=<value>."
    if isinstance(error, CompactHydraException | OmegaConfBaseException):
        return _of_hydra(message, error)
    if message.startswith("Config group override must be a string"):  # Hydra, for a word such as =3
        return _no_word()
    from rlhf_trl_ext.configuration.checks import ConfigError

    return str(error) if isinstance(error, ConfigError) else None


def _of_hydra(message: str, error: Exception) -> str:
    """What Hydra or OmegaConf refuses, by the key and value as they were typed."""
    if absent := re.search(r"Could not (?:find|load) '(?:[\w/]+/)?(\w+)/([\w.-]+)'", message):
        return _no_choice(*absent.groups())
    if group := re.search(r"Could not override '([\w/@.]+)'. No match in the defaults list", message):
        return f"{_typed(group.group(1))}: this launcher has no group {group.group(1)}; see --help for those it has."
    if inside := re.search(r"Could not override '([\w.]+)'.*Key '(\w+)' is not in struct full_key: \1\.\2", message):
        key, name = inside.groups()
        return f"{_typed(key)}: {key} has no {name}; +{key}.{name}=<value> adds it where {key} takes names of your own."
    if key := re.search(r"Could not override '([\w./@\[\]]+)'", message):
        return f"{_typed(key.group(1))}: no such key; {_hint(key.group(1))}"
    full = getattr(error, "full_key", None)
    full = full or (re.search(r"full_key: ([\w.\[\]]+)", message) or [None, None])[1]
    if "Recursive interpolation" in message or isinstance(error, InterpolationResolutionError | InterpolationKeyError):
        return (
            f"{full or 'a value'}: its ${{...}} cannot be resolved ({message.partition(' full_key')[0]}); give a value."
        )
    if re.search("parsing override|no viable alternative|(mismatched|extraneous) input|token recognition", message):
        reason = re.sub(r"Error parsing override '\+*(.*?)' ", r"\1: ", message.partition(" See https")[0])
        argument = next(filter(_is_unreadable, sys.argv[1:]), None)
        reason = f"{argument}: {reason}" if argument and not reason.startswith(argument.lstrip("+~")) else reason
        return f"{reason}; values with = ( ) [ ] {{ }} , : or spaces are quoted twice, 'key=\"value\"'."
    if merged := re.match(r"Error merging override \+*(.*)", message):
        return f"{merged[1]}: another kind of value stands there, a list [a,b], names and values {{a: b}} or one value."
    if full:
        return f"{full}: {message.partition(' full_key')[0]}."
    return message


def _no_word() -> str:
    """Which override gives a group something that is no name of a choice."""
    for argument in sys.argv[1:]:
        key, equals, value = argument.lstrip("+~").partition("=")
        if equals and key in _groups() and not re.match(r"[A-Za-z\[{]", value.replace("null", "")):
            allowed = ", ".join(sorted(name for name in _choices(key) if not name.startswith("_")))
            return f"{argument}: {key} is a group of settings; allowed are {allowed}."
    return "an override is written key=value; one of the command line's has no key, or a group gets a number."


def _is_unreadable(argument: str) -> bool:
    """Whether Hydra's grammar has no place for this argument of the command line."""
    if argument.startswith("-") or "=" not in argument:
        return False
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return True
    return False


def _no_choice(group: str, choice: str, options: list[str] | None = None) -> str:
    allowed = sorted(name for name in options or _choices(group) if not name.startswith("_"))
    return f"{group or 'config'}={choice}: no such choice; allowed are {', '.join(allowed)}."


def _choices(group: str) -> list[str]:
    """Names in a config group, those of `--config-dir` as well while Hydra's search path is known."""
    if GlobalHydra.instance().is_initialized():
        return GlobalHydra.instance().config_loader().get_group_options(group)
    return [path.stem for path in (CONF / group).glob("*.yaml")]


def _typed(key: str) -> str:
    """The override of `key` as it stands in the command line, without Hydra's + and ~."""
    return next((a.lstrip("+~") for a in sys.argv[1:] if a.lstrip("+~").startswith(key)), key)


def _groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def _hint(key: str) -> str:
    """Where a key that does not exist probably belongs."""
    top = [line.split(":")[0] for line in (CONF / "base.yaml").read_text().splitlines() if re.match(r"\w+:", line)]
    first, _, below = key.partition(".")
    if "/" in key:
        return "groups are chosen by group=<choice>, their keys given by group.key=<value>; see --help."
    if key in top and "={" in _typed(key):
        return f"names that it has not yet are added by +{_typed(key)}"
    if first in _groups() or first in top:
        return f"this launcher reads no {first}{' of this name' if below else ''}; see --help for its keys."
    if close := difflib.get_close_matches(key, top + _groups()):
        return f"did you mean {' or '.join(close)}?"
    if below or not re.search(r"train|plan|pipeline|benchmark", sys.argv[0]):
        return "see --help for the keys of this launcher."
    return f"an argument of TRL's config class is written args.{key}=<value>; see --help for the others."
