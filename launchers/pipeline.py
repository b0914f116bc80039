"""SFT, reward model, policies, samples, judgement: `python -m launchers.pipeline experiment=demo`."""

import json
from pathlib import Path

from launchers.entry import entry


@entry("pipeline")
def main(config):
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from evaluation.results import judge_of, summarise, table
    from rlhf_trl_ext.checks import stated
    from rlhf_trl_ext.pipeline import Plan, link

    chosen = HydraConfig.get().runtime.choices
    experiment = chosen.get("experiment") or f"{chosen['dataset']}-{chosen['model']}"
    folder = Path(config.output_dir or Path(config.output_root) / experiment)
    plan = Plan(config, lambda name: compose(f"algorithm/{name}"))
    plan.check()
    with stated():
        judge_of(config)  # a missing key is told before anything is trained
    records = plan.execute()
    with stated():
        results = summarise(config, records)
    folder.mkdir(parents=True, exist_ok=True)
    link(folder, plan.folders)
    (folder / "results.json").write_text(json.dumps(results, indent=2))
    console = Console()
    console.width = max(console.width, 110)  # a log file has no width of its own
    console.print(table(results))
    print(f"written to {folder / 'results.json'}")


if __name__ == "__main__":
    main()
