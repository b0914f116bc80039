"""Train one stage: `python -m launchers.train algorithm=dpo dataset=hh model=1b`, also under accelerate."""

import json
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from launchers.entry import entry


@entry("train")
def main(config: DictConfig):
    from rlhf_trl_ext.stages.train import train

    # An experiment's settings of this stage lie below what the command line says.
    said = [override.lstrip("+") for override in HydraConfig.get().overrides.task]
    stage = config.stages.get(config.name) or {}
    last = OmegaConf.from_dotlist([override for override in said if override.startswith("args.")])
    OmegaConf.set_struct(config, False)
    record = train(OmegaConf.merge(config, stage, last))
    if os.environ.get("RANK", "0") == "0":
        if "JOB_RECORD" in os.environ:  # a sweep wants to know
            Path(os.environ["JOB_RECORD"]).write_text(json.dumps(record))
        print(f"{record['name']}: {record['steps']} steps in {record['train_seconds']} s")


if __name__ == "__main__":
    main()
