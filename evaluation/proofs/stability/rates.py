"""Detection and false alarms of the monitor's rules on recorded runs: `python -m evaluation.proofs.stability.rates`.

Reads what `python -m evaluation.proofs.stability.record` wrote and shows the rules every log, as `StabilityMonitor`
does. A failure counts as seen if a rule speaks after it was planted and before a tenth of the run is over; a healthy
run in which any rule speaks is a false alarm. Rules were chosen on seeds 0 to 6, 10 and 11, failures planted on 2 and
10.
"""

import argparse
import json
from pathlib import Path

from omegaconf import OmegaConf

from evaluation.proofs.stability.record import FAILURE_SEEDS, FAILURES, SEEDS, onset_of, policies
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.callbacks.stability import StabilityRules
from rlhf_trl_ext.configuration.composing import compose_config
from rlhf_trl_ext.statistics import wilson_interval

GOLD = "gold_reward"


def alerts_of(folder: Path, rules: dict, gold: str | None = GOLD) -> list[dict]:
    """Every alert of a recorded run: step, rule, metric, value, message."""
    seen = StabilityRules(rules, gold)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    return [{"step": row["step"], **alert} for row in rows for alert in seen.update(row)]


def measure(root: Path, rules: dict, seeds: list[int], failure_seeds: list[int]) -> dict:
    """Alerts by run: `healthy` and `failures`, the latter with only those after the onset, and the onset itself."""
    rates = {"healthy": {}, "failures": {}}
    for algorithm in policies():
        for seed in seeds:
            if (root / f"{algorithm}-{seed}" / "stage.json").exists():
                rates["healthy"][f"{algorithm}-{seed}"] = alerts_of(root / f"{algorithm}-{seed}", rules)
    for name in FAILURES:
        for seed in failure_seeds:
            folder = root / f"{name}-{seed}"
            if (folder / "stage.json").exists():
                onset, end = onset_of(read_metrics(folder / "metrics.jsonl")[0]["max_steps"])
                late = [alert for alert in alerts_of(folder, rules) if onset < alert["step"] <= end]
                rates["failures"][folder.name] = {"onset": onset, "end": end, "alerts": late}
    return rates


def as_text(rates: dict) -> str:
    """The result as text."""
    lines = []
    for name, failure in rates["failures"].items():
        steps = [alert["step"] - failure["onset"] for alert in failure["alerts"]]
        rules = sorted({alert["rule"] for alert in failure["alerts"]})
        seen = f"seen {min(steps)} of {failure['end'] - failure['onset']} steps after" if steps else "NOT SEEN"
        lines.append(f"{name:<34} {seen:<26} {', '.join(rules)}")
    for name, alerts in rates["healthy"].items():
        for alert in alerts:
            lines.append(f"false alarm: {name} step {alert['step']} {alert['rule']}: {alert['message']}")
    seen = sum(bool(failure["alerts"]) for failure in rates["failures"].values())
    wrong = sum(bool(alerts) for alerts in rates["healthy"].values())
    for what, hits, of in (("failures seen", seen, rates["failures"]), ("false alarms", wrong, rates["healthy"])):
        if of:
            low, high = wilson_interval(hits, len(of))
            lines.append(f"{what}: {hits} of {len(of)} runs (95 % interval {low:.0%} - {high:.0%})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("outputs/stability"))
    parser.add_argument("--rules", default="standard", help="of conf/monitor")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--failure-seeds", type=int, nargs="+", default=FAILURE_SEEDS)
    options = parser.parse_args()
    rules = OmegaConf.to_container(compose_config("train", [f"monitor={options.rules}"]).monitor.rules)
    rates = measure(options.runs, rules, options.seeds, options.failure_seeds)
    (options.runs / "rates.json").write_text(json.dumps(rates, indent=1))
    print(as_text(rates))


if __name__ == "__main__":
    main()
