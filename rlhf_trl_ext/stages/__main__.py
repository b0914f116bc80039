"""One stage of any kind from the `config.yaml` in its folder: `python -m rlhf_trl_ext.stages <folder> [trust=[...]]`.

Pipelines start it, under accelerate where a stage has several processes.
"""

import importlib
import logging
import os
import sys
from pathlib import Path

from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.foreign import own_folder
from rlhf_trl_ext.configuration.mistakes import report_user_errors
from rlhf_trl_ext.configuration.notices import leave_out
from rlhf_trl_ext.configuration.review import review
from rlhf_trl_ext.stages.guard import end_with_parent
from rlhf_trl_ext.stages.kinds import kind_of


def main(folder: str, *overrides: str) -> None:
    """Run, resume or reuse the stage, by the function of its kind's module that has the kind's name.

    overrides: of the file, `key=value`; what is trusted can be said here only.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rlhf_trl_ext").setLevel(logging.INFO)
    leave_out()
    if "LOCAL_RANK" in os.environ:  # a worker of accelerate, whose death it would outlive
        end_with_parent()
    with report_user_errors():
        config = OmegaConf.load(Path(folder) / "config.yaml")
        config.pop("defaults", None)  # of the launchers
        config = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
        own_folder(config, Path(folder), list(overrides))
        kind = kind_of(config)
        review(config, kind.name, list(overrides))
        record = getattr(importlib.import_module(kind.code), kind.name)(config)
        if os.environ.get("RANK", "0") == "0":
            print(f"{record['name']}: finished in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
