"""The last lines of a run: the model's folder, its metrics, and the next command."""

import json
from pathlib import Path

# Metrics of a record that are worth a line, if it has them.
SHOWN = ("eval_loss", "eval_accuracy", "eval_margin", "eval_rewards/accuracies", "eval_rewards/margins", "eval_reward")


def ending(record: dict) -> list[str]:
    """Lines on a trained stage. record: as `stages.train.train` returns it."""
    folder = Path(record["folder"])
    metrics = {key: record["metrics"][key] for key in SHOWN if key in (record.get("metrics") or {})}
    did = "".join(f", {key.removeprefix('eval_')} {value:.4g} on held-out rows" for key, value in metrics.items())
    return [
        f"{record['name']}: {record['steps']} steps in {record['train_seconds']} s{did}",
        f"model: {folder}",
        f"next: {_next(folder)}",
    ]


def _next(folder: Path) -> str:
    model = folder if (folder / "config.json").is_file() else folder / "adapter"
    try:
        described = json.loads((folder / "config.json").read_text()).get("architectures") or []
    except (OSError, ValueError):
        described = []
    if any("SequenceClassification" in name for name in described):
        return f"python -m launchers.train algorithm=grpo reward.path={folder} ..., or judge=reward_model judge.path="
    return f"python -m launchers.chat policy={model}, or python -m launchers.generate policy={model} ..."


def pipeline_ending(results: dict, folder: Path) -> list[str]:
    """Lines on a pipeline's results.json: where all is, who won most, what comes next."""
    lines = [f"written to {folder / 'results.json'}, models to {folder}/<stage>"]
    if results["policies"]:
        best = max(results["policies"], key=lambda name: results["policies"][name]["win_rate"] or 0.0)
        lines += [results["policies"][best]["in_words"], f"next: python -m launchers.report {folder}"]
        lines += [f"      python -m launchers.chat policy={folder / best}"]
    return lines
