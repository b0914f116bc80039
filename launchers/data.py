"""What is in a data set, before anything is trained: `python -m launchers.data dataset=file dataset.path=rows.csv`."""

from launchers.entry import entry


@entry("data")
def main(config):
    import logging

    from omegaconf import OmegaConf
    from rich.console import Console

    from rlhf_trl_ext.configuration.checks import as_config_error, build
    from rlhf_trl_ext.data import inspection
    from rlhf_trl_ext.stages.identity import built_folder

    logging.getLogger("rlhf_trl_ext").setLevel(logging.INFO)
    console = Console()
    console.width = max(console.width, 100)  # a log file has no width of its own
    dataset, model = build(config.dataset, "dataset"), build(config.model, "model")
    with as_config_error("dataset"):
        tokenizer = model.tokenizer(model.checkpoint(built_folder(config)))
        view, rows = inspection.load(dataset, config.view, config.split, tokenizer)
        facts = inspection.summary(rows, tokenizer)
    for panel in inspection.rendered(rows.select(range(min(config.rows, len(rows)))), tokenizer):
        console.print(panel)
    console.print(f"{facts['rows']:,} rows of {view}, columns {', '.join(facts['columns'])}")
    for name, numbers in facts["lengths"].items():
        low, middle, high, most = numbers
        console.print(f"{name}: {middle:.0f} {facts['unit']} (5-95 %: {low:.0f}-{high:.0f}, longest {most:.0f})")
    if facts["nearly_equal"] is not None:
        console.print(f"pairs whose replies are nearly equal: {facts['nearly_equal']:.1%}")
    if facts.get("repeated"):
        console.print(f"replies that begin with the whole prompt: {facts['repeated']:.1%}")
    if "turns" in facts:
        console.print(f"turns of a prompt: at most {facts['turns']}; with a system turn: {facts['system']:.0%}")
    if config.output:
        OmegaConf.save(OmegaConf.create(facts), config.output)


if __name__ == "__main__":
    main()
