"""Train one stage: `python -m launchers.train algorithm=dpo dataset=hh model=1b`, also under accelerate."""

import os

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from launchers.entry import entry


@entry("train")
def main(config: DictConfig):
    from rlhf_trl_ext.configuration.overrides import training_config
    from rlhf_trl_ext.stages.ending import ending
    from rlhf_trl_ext.stages.sweep import in_sweep
    from rlhf_trl_ext.stages.train import train

    record = train(training_config(config, HydraConfig.get().runtime.choices.get("algorithm")))
    if os.environ.get("RANK", "0") == "0":
        lines = ending(record)
        print("\n".join(lines[:1] if in_sweep() else lines))
    return record


if __name__ == "__main__":
    main()
