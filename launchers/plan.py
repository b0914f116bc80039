"""What a run needs of memory: `python -m launchers.plan algorithm=ppo model=7b deepspeed=zero3 num_gpus=8`."""

from launchers.entry import entry


@entry("plan")
def main(config):
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from rlhf_trl_ext.configuration.checks import as_config_error
    from rlhf_trl_ext.configuration.overrides import training_config
    from rlhf_trl_ext.memory.plan import plan
    from rlhf_trl_ext.memory.table import details, table

    chosen = HydraConfig.get()
    with as_config_error():
        config_of_run = training_config(config, chosen.runtime.choices.get("algorithm"))
        prediction, sentences, title = plan(config_of_run, chosen.overrides.task)
    console = Console()
    console.width = max(console.width, 120)  # a log file has no width of its own
    print("\n".join([*sentences, "", title]))
    console.print(table(prediction))
    if config.verbose:
        console.print(details(prediction))


if __name__ == "__main__":
    main()
