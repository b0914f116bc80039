"""Training logs of other frameworks as rows of metrics.jsonl: step, max_steps, seconds, then TRL's names."""

import contextlib
import json
from pathlib import Path

from rlhf_trl_ext.callbacks.records import as_row

NAMES = {"lr": "learning_rate", "accuracy": "rewards/accuracies"}  # of LLaMA-Factory
# Of verl and OpenRLHF, what TRL's logs call it.
NAMES |= {
    "critic/rewards/mean": "reward",
    "critic/score/mean": "score",
    "actor/pg_loss": "loss",
    "actor/kl_loss": "kl",
    "actor/entropy": "entropy",
    "actor/lr": "learning_rate",
    "response_length/mean": "completions/mean_length",
    "train/reward": "reward",
    "train/kl": "kl",
    "train/policy_loss": "loss",
    "train/response_length": "completions/mean_length",
    "train/loss": "loss",
    "train/acc_mean": "rewards/accuracies",
}
UNITS = {"current_steps", "total_steps", "percentage", "elapsed_time", "remaining_time", "step"}


def read(folder: Path) -> tuple[list[dict], str]:
    """Rows by step, and the file that they are of; none where the folder holds no log that is known.

    trainer_state.json (TRL, Axolotl; of several checkpoints the last), trainer_log.jsonl (LLaMA-Factory), jsonl with
    {step, data} (verl), TensorBoard's event files (all; the extra `tensorboard`).
    """
    states = sorted(folder.glob("**/trainer_state.json"), key=lambda path: _state(path).get("global_step", 0))
    if (path := folder / "trainer_log.jsonl").is_file():
        return _rows(_llamafactory(row) for row in _lines(path)), str(path)
    if states:
        state = _state(states[-1])
        return _rows({**row, "max_steps": state.get("max_steps")} for row in state.get("log_history", [])), str(
            states[-1]
        )
    for path in sorted(folder.glob("**/*.jsonl")):
        rows = [row for row in _lines(path) if isinstance(row.get("data"), dict) and "step" in row]
        if rows:
            return _rows({"step": row["step"], **row["data"]} for row in rows), str(path)
    if events := sorted(folder.glob("**/events.out.tfevents*")):
        return _tensorboard(events[0].parent), str(events[0].parent)
    return [], ""


def _state(path: Path) -> dict:
    with contextlib.suppress(ValueError, OSError):
        state = json.loads(path.read_text())
        return state if isinstance(state, dict) else {}
    return {}


def _lines(path: Path) -> list[dict]:
    with path.open("rb") as file:
        return [row for line in file if (row := as_row(line)) is not None]


def _llamafactory(row: dict) -> dict:
    spent = {"step": row.get("current_steps"), "max_steps": row.get("total_steps")}
    parts = [float(part) for part in str(row.get("elapsed_time", "0")).rpartition(" ")[2].split(":")]
    spent["seconds"] = sum(part * 60**place for place, part in enumerate(reversed(parts)))
    return {**spent, **{key: value for key, value in row.items() if key not in UNITS}}


def _rows(rows) -> list[dict]:
    """Numbers only, under TRL's names, in order; what one step logs twice stands together."""
    by_step: dict[int, dict] = {}
    for row in rows:
        if isinstance(row.get("step"), int):
            numbers = {NAMES.get(k, k): v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
            by_step.setdefault(row["step"], {"step": row["step"]}).update(numbers)
    last = max(by_step, default=0)
    return [{"max_steps": last, "seconds": 0.0, **by_step[step]} for step in sorted(by_step)]


def _tensorboard(folder: Path) -> list[dict]:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise ValueError(f"{folder} holds TensorBoard's logs: pip install 'rlhf-trl-ext[tensorboard]'.") from error
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    read = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    begin = min((event.wall_time for scalars in read.values() for event in scalars), default=0.0)
    return _rows(
        {"step": event.step, "seconds": round(event.wall_time - begin, 3), tag: event.value}
        for tag, scalars in read.items()
        for event in scalars
    )
