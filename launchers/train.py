"""Train one stage: `python -m launchers.train algorithm=grpo dataset=hh model=1b`, also under `accelerate launch -m`."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from launchers.entry import entry


@entry("train")
def main(config: DictConfig):
    from rlhf_trl_ext.training import train

    # An experiment's settings of this stage lie below what the command line says.
    said = [override.lstrip("+") for override in HydraConfig.get().overrides.task]
    stage = config.stages.get(config.name) or {}
    OmegaConf.set_struct(config, False)
    record = train(OmegaConf.merge(config, stage, OmegaConf.from_dotlist([o for o in said if o.startswith("args.")])))
    print(f"{record['name']}: {record['steps']} steps in {record['train_seconds']} s")


if __name__ == "__main__":
    main()
