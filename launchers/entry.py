"""The entry point of every launcher: Hydra composes, and mistakes are answered in one sentence."""

import functools
import os
import re
import sys
import warnings

import hydra

from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.configuration.mistakes import report_user_errors
from rlhf_trl_ext.configuration.overrides import opened
from rlhf_trl_ext.stages.guard import end_with_parent


def entry(config_name: str, positional: str | None = None):
    """Decorate `main(config)`: returns a function without arguments for `__main__`.

    positional: the key of a first argument that is written without one.
    """

    def decorate(main):
        @functools.wraps(main)
        def task(config):
            with report_user_errors():
                accept(config, config_name)
                main(config)

        def command():
            if os.environ.get("WORLD_SIZE", "1") != "1" and {"-m", "--multirun"} & set(sys.argv[1:]):
                sys.exit(
                    "error: --multirun inside accelerate launch would sweep once in every process: "
                    "run `python -m launchers.train -m hydra/launcher=accelerate hydra.launcher.num_processes=<n> ...`."
                )
            if positional and sys.argv[1:] and not re.match(r"-|(?![/.]|~/)[\w./@+~]+=", sys.argv[1]):
                sys.argv[1] = f"{positional}={sys.argv[1]}"
            flags = {"--dry-run": "dry_run=true"}
            sys.argv[1:] = [flags.get(argument) or opened(argument) for argument in sys.argv[1:]]
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that exceptions reach `answered`
            warnings.filterwarnings("ignore", category=FutureWarning)
            if "LOCAL_RANK" in os.environ:  # a worker of accelerate, whose death it would outlive
                end_with_parent()
            with report_user_errors():
                refuse_foreign_hydra(sys.argv[1:])
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()

        return command

    return decorate


def refuse_foreign_hydra(arguments: list[str]) -> None:
    """Raises ConfigError where a folder of the command line sets Hydra up."""
    from rlhf_trl_ext.configuration.foreign import hydra_settings

    if found := hydra_settings(arguments):
        from rlhf_trl_ext.configuration.checks import ConfigError, listed

        raise ConfigError(listed(found))


def accept(config, launcher: str) -> None:
    """Review a launcher's configuration, and note in it what the command line said.

    One that lies in a stage's own folder writes to that folder, and is run by the launcher of its kind.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from rlhf_trl_ext.configuration.foreign import folder_of, own_folder
    from rlhf_trl_ext.configuration.overrides import keep
    from rlhf_trl_ext.configuration.review import review
    from rlhf_trl_ext.configuration.reward_names import resolve_names
    from rlhf_trl_ext.stages.kinds import refuse_kind

    hydra_config = HydraConfig.get()
    overrides = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # as they were typed
    if folder := folder_of(hydra_config.job.config_name, hydra_config.runtime.config_sources):
        own_folder(config, folder, overrides)
    refuse_kind(config, launcher)
    resolve_names(config)
    review(config, launcher, overrides)
    keep(config, overrides, lambda groups: hydra.compose(hydra_config.job.config_name, overrides=groups))
