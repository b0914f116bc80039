"""Mistakes of the caller, answered in one sentence."""

import contextlib
import difflib
import os
import re
import signal
import sys

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from rlhf_trl_ext.configuration.folders import CONF


@contextlib.contextmanager
def report_user_errors():
    """End the process with one sentence for a mistake of the caller; TRACEBACK=1 shows where it was found."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        told = sentence(error)
        if told is None or os.environ.get("TRACEBACK") == "1":
            raise
        sys.exit(f"error: {told}")


def sentence(error: Exception) -> str | None:
    """A mistake of the caller in one sentence; None for any other exception, whose traceback is wanted."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        allowed = sorted(name for name in error.options or _choices(group) if not name.startswith("_"))
        return f"{group or 'config'}={choice}: no such choice; allowed are {', '.join(allowed)}."
    missing = re.search(r"Missing mandatory value: ([\w.]+)", str(error))
    if missing:
        return f"{missing.group(1)} has no value: give {missing.group(1)}=<value>."
    if isinstance(error, CompactHydraException | OmegaConfBaseException):
        key = re.search(r"Could not override '([\w.]+)'", str(error))
        if key is None:
            return " ".join(str(error).split())
        given = next((a.lstrip("+~") for a in sys.argv[1:] if a.lstrip("+~").startswith(key.group(1))), key.group(1))
        return f"{given}: no such key; {_hint(key.group(1))}"
    from rlhf_trl_ext.configuration.checks import ConfigError

    return str(error) if isinstance(error, ConfigError) else None


def _choices(group: str) -> list[str]:
    """Names in a config group, those of `--config-dir` as well while Hydra's search path is known."""
    if GlobalHydra.instance().is_initialized():
        return GlobalHydra.instance().config_loader().get_group_options(group)
    return [path.stem for path in (CONF / group).glob("*.yaml")]


def _hint(key: str) -> str:
    """Where a key that does not exist probably belongs."""
    top = [line.split(":")[0] for line in (CONF / "base.yaml").read_text().splitlines() if re.match(r"\w+:", line)]
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    close = difflib.get_close_matches(key, top + groups)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"an argument of TRL's config class is written args.{key}=<value>; see --help for the others."
