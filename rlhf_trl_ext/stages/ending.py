"""The last lines of a run: the model's folder, its metrics, and the next command."""

from pathlib import Path
from shlex import quote

from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.files import read_mark

# Metrics of a record that are worth a line, if it has them.
SHOWN = ("eval_loss", "eval_accuracy", "eval_margin", "eval_rewards/accuracies", "eval_rewards/margins", "eval_reward")


# Of a training log, where nothing was held out.
LOGGED = ("reward", "rewards/accuracies", "accuracy", "loss")


def ending(record: dict) -> list[str]:
    """Lines on a trained stage. record: as `stages.train.train` returns it."""
    folder = Path(record["folder"])
    model = folder if (folder / "config.json").is_file() else folder / "adapter"
    return [
        f"{record['name']}: {record['steps']} steps in {record['train_seconds']} s{_did(record, folder)}",
        f"model: {model}",
        *(f"{'next:' if number == 0 else '     '} {command}" for number, command in enumerate(_next(model))),
    ]


def _did(record: dict, folder: Path) -> str:
    """How a stage did: on held-out rows, or at the end of its log."""
    recorded = record.get("metrics") or {}
    metrics = {key: recorded[key] for key in SHOWN if recorded.get(key) is not None}  # null: no finite number
    if metrics:
        values = ", ".join(f"{key.removeprefix('eval_')} {value:.4g}" for key, value in metrics.items())
        return f", {values} on held-out rows"
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
    last = {key: row[key] for row in rows for key in LOGGED if isinstance(row.get(key), int | float)}
    values = ", ".join(f"{key} {last[key]:.4g}" for key in LOGGED if key in last)
    return f", {values} at the end of training (evaluate=true measures held-out rows)" if values else ""


def _next(model: Path) -> list[str]:
    """Commands that go on with a model."""
    if _is_reward(model):
        return [
            f"python -m launchers.train algorithm=grpo {quote(f'reward.path={model}')} ...",
            f"python -m launchers.evaluate ... judge=reward_model {quote(f'judge.path={model}')}",
        ]
    return [f"python -m launchers.{verb} {quote(f'policy={model}')}" for verb in ("chat", "generate", "serve")]


def _is_reward(model: Path) -> bool:
    config = read_mark(model / "config.json") or {}
    adapter = read_mark(model / "adapter_config.json") or {}
    names = [*(config.get("architectures") or []), str(adapter.get("task_type"))]
    return any("SequenceClassification" in name or name == "SEQ_CLS" for name in names)


def pipeline_ending(results: dict, folder: Path) -> list[str]:
    """Lines on a pipeline's results.json: where all is, who won most, what comes next."""
    lines = [f"written to {folder / 'results.json'}, models to {folder}/<stage>"]
    if results["policies"]:
        best = max(results["policies"], key=lambda name: results["policies"][name]["win_rate"] or 0.0)
        lines += [results["policies"][best]["in_words"], f"next: python -m launchers.report {quote(str(folder))}"]
        lines += [f"      python -m launchers.chat {quote(f'policy={folder / best}')}"]
    return lines
