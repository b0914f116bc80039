"""SFT, reward model, policies, samples, judgement: `python -m launchers.pipeline experiment=demo`."""

from pathlib import Path

from launchers.entry import entry


@entry("pipeline")
def main(config):
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from evaluation.files import write_json
    from evaluation.verdicts.results import judge_of, summarise, table
    from rlhf_trl_ext.configuration.checks import as_config_error
    from rlhf_trl_ext.stages.pipeline import Plan, link

    chosen = HydraConfig.get().runtime.choices
    experiment = chosen.get("experiment") or f"{chosen['dataset']}-{chosen['model']}"
    folder = Path(config.output_dir or Path(config.output_root) / experiment)
    plan = Plan(config, lambda name: compose(f"algorithm/{name}"))
    plan.check()
    with as_config_error():
        judge_of(config)  # a missing key is told before anything is trained
    records = plan.execute()
    with as_config_error():
        results = summarise(config, records, folder)
    link(folder, plan.folders)
    write_json(folder / "results.json", results)
    console = Console()
    console.width = max(console.width, 110)  # a log file has no width of its own
    console.print(table(results))
    print(f"written to {folder / 'results.json'}")


if __name__ == "__main__":
    main()
