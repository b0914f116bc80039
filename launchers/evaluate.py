"""Compare samples of policies with a baseline: `python -m launchers.evaluate baseline=... policies={...}`."""

import json
from pathlib import Path

from launchers.entry import entry


@entry("evaluate")
def main(config):
    from hydra.utils import instantiate
    from rich.console import Console

    from evaluation.results import compare, describe, read_samples, table
    from rlhf_trl_ext.checks import stated

    with stated():
        judge = instantiate(config.judge)
        baseline = read_samples(config.baseline)
        policies = {name: read_samples(path) for name, path in config.policies.items()}
        compared = compare(judge, baseline, policies)
    results = {"baseline": "baseline", "judge": judge.name, "baseline_result": describe(baseline), "policies": compared}
    Console().print(table(results))
    if config.output:
        Path(config.output).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
