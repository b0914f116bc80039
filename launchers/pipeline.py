"""SFT, reward model, policies, samples, judgement: `python -m launchers.pipeline experiment=demo`."""

from launchers.entry import entry


@entry("pipeline")
def main(config):
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from evaluation.verdicts.fairness import expectation
    from evaluation.verdicts.results import check_free, judge_of, pipeline_folder, table, write_results
    from rlhf_trl_ext.configuration.checks import as_config_error, build
    from rlhf_trl_ext.stages.ending import pipeline_ending
    from rlhf_trl_ext.stages.pipeline import Pipeline

    folder = pipeline_folder(config, HydraConfig.get().runtime.choices)
    pipeline = Pipeline(config, lambda name: compose(f"algorithm/{name}"))
    pipeline.check()
    check_free(config, folder)
    with as_config_error():
        judge_of(config)  # a missing key is told before anything is trained
    if warning := expectation(config, build(config.dataset, "dataset")):
        print(f"warning: {warning}")
    pipeline.execute()
    with as_config_error():
        results = write_results(config, pipeline, folder)
    console = Console()
    console.width = max(console.width, 150)  # a log file has no width of its own
    console.print(table(results))
    print("\n".join(pipeline_ending(results, folder)))
    return {"folder": str(folder), "policies": results["policies"]}


if __name__ == "__main__":
    main()
