"""The entry point of every launcher: Hydra composes, and mistakes are answered in one sentence."""

import functools
import os
import re
import sys

import hydra

from rlhf_trl_ext.configuration.acceptance import accept, refuse_foreign_hydra
from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.configuration.mistakes import report_user_errors
from rlhf_trl_ext.configuration.notices import leave_out
from rlhf_trl_ext.configuration.overrides import opened, options_last
from rlhf_trl_ext.stages import sweep
from rlhf_trl_ext.stages.guard import end_with_parent


def entry(config_name: str, positional: str | None = None):
    """Decorate `main(config)`: returns a function without arguments for `__main__`.

    positional: the key of a first argument that is written without one.
    """

    def decorate(main):
        jobs, ranking = [], {}  # of a sweep in this process

        @functools.wraps(main)
        def task(config):
            with report_user_errors():
                accept(config, config_name)
                sweep.check(config)
                ranking.update(config.get("sweep", {}))
                return sweep.keep(jobs, config, main(config))

        def command():
            if os.environ.get("WORLD_SIZE", "1") != "1" and {"-m", "--multirun"} & set(sys.argv[1:]):
                sys.exit(
                    "error: --multirun inside accelerate launch would sweep once in every process: "
                    "run `python -m launchers.train -m hydra/launcher=accelerate hydra.launcher.num_processes=<n> ...`."
                )
            sys.argv[1:] = options_last(sys.argv[1:])
            if positional and sys.argv[1:] and not re.match(r"-|(?![/.]|~/)[\w./@+~]+=", sys.argv[1]):
                sys.argv[1] = f"{positional}={sys.argv[1]}"
            flags = {"--dry-run": "dry_run=true", "--verbose": "verbose=true"}
            sys.argv[1:] = [flags.get(argument) or opened(argument) for argument in sys.argv[1:]]
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that exceptions reach report_user_errors
            leave_out()
            if "LOCAL_RANK" in os.environ:  # a worker of accelerate, whose death it would outlive
                end_with_parent()
            with report_user_errors(), sweep.table_at_end(jobs, ranking):
                refuse_foreign_hydra(sys.argv[1:])
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()

        return command

    return decorate
