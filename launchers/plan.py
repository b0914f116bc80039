"""What a run needs of memory: `python -m launchers.plan algorithm=ppo model=7b deepspeed=zero3 num_gpus=8`."""

from launchers.entry import entry


@entry("plan")
def main(config):
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from rlhf_trl_ext.configuration.checks import as_config_error
    from rlhf_trl_ext.configuration.overrides import training_config
    from rlhf_trl_ext.memory.plan import plan
    from rlhf_trl_ext.memory.table import table

    with as_config_error():
        algorithm = HydraConfig.get().runtime.choices.get("algorithm")
        prediction, advice, title = plan(training_config(config, algorithm))
    console = Console()
    console.width = max(console.width, 100)  # a log file has no width of its own
    console.print(table(prediction, title))
    for sentence in advice:
        print(sentence)


if __name__ == "__main__":
    main()
