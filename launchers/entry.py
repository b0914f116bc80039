"""The entry point of every launcher: Hydra composes, and mistakes are answered in one sentence."""

import contextlib
import difflib
import functools
import os
import re
import sys
import warnings
from pathlib import Path

import hydra
from hydra.errors import CompactHydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parents[1] / "conf"
# Keys below args belong to TRL's class, not to the YAML: `args.x=1` adds what the YAML does not list.
OPEN = re.compile(
    r"^((?:stages\.\w+\.)?(?:args|trainer|model|dataset|judge|probes|classifier|labeller|labelling|pairs|reviser|reward|held_out|callbacks|monitor|profile)\.[\w.]+=)"
)


def entry(config_name: str, positional: str | None = None):
    """Decorate `main(config)`: returns a function without arguments for `__main__`.

    positional: the key of a first argument that is written without one.
    """

    def decorate(main):
        @functools.wraps(main)
        def task(config):
            with answered():
                main(config)

        def command():
            if os.environ.get("WORLD_SIZE", "1") != "1" and {"-m", "--multirun"} & set(sys.argv[1:]):
                sys.exit(
                    "error: --multirun inside accelerate launch would sweep once in every process: "
                    "run `python -m launchers.train -m hydra/launcher=accelerate hydra.launcher.num_processes=<n> ...`."
                )
            if positional and sys.argv[1:] and not re.match(r"-|[\w./@+~]+=", sys.argv[1]):
                sys.argv[1] = f"{positional}={sys.argv[1]}"
            flags = {"--dry-run": "dry_run=true"}
            sys.argv[1:] = [flags.get(argument) or OPEN.sub(r"++\1", argument) for argument in sys.argv[1:]]
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that exceptions reach `answered`
            warnings.filterwarnings("ignore", category=FutureWarning)
            with answered():
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()

        return command

    return decorate


@contextlib.contextmanager
def answered():
    """End the process with one sentence for a mistake of the caller; TRACEBACK=1 shows where it was found."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues from the last checkpoint")
    except Exception as error:
        told = sentence(error)
        if told is None or os.environ.get("TRACEBACK") == "1":
            raise
        sys.exit(f"error: {told}")


def sentence(error: Exception) -> str | None:
    """A mistake of the caller in one sentence; None for any other exception, whose traceback is wanted."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        allowed = sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))
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
    from rlhf_trl_ext.checks import ConfigError

    return str(error) if isinstance(error, ConfigError) else None


def _hint(key: str) -> str:
    """Where a key that does not exist probably belongs."""
    top = [line.split(":")[0] for line in (CONF / "base.yaml").read_text().splitlines() if re.match(r"\w+:", line)]
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    close = difflib.get_close_matches(key, top + groups)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"an argument of TRL's config class is written args.{key}=<value>; see --help for the others."
