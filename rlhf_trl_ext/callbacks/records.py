"""What every run records, whatever it reports to: metrics as JSONL, seconds, peak memory and sampled tokens."""

import contextlib
import json
import math
import resource
import time
from pathlib import Path

import torch
from transformers import TrainerCallback

from rlhf_trl_ext.files import finite, full_disk, write

REFERENCE_TOKENS = "completions/reference_tokens"  # logged once, where rewards are standardised on samples


class MetricsRecorder(TrainerCallback):
    """Append one JSON line per log to `metrics.jsonl`; a resumed run continues at its checkpoint's step.

    seconds: training time, summed over the sessions of an interrupted run.
    sampled_tokens: completion tokens generated so far, over all processes (online algorithms only), those by which PPO
    measures its reference included.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder) / "metrics.jsonl"
        self.seconds = 0.0
        self.sampled_tokens = 0
        self.last_step = 0

    def on_train_begin(self, args, state, control, **kwargs):
        rows = read_metrics(self.path) if self.path.exists() else []
        rows = [row for row in rows if row["step"] <= state.global_step]
        if state.is_world_process_zero:
            write(self.path, "".join(_line(row) for row in rows))
        if rows:
            self.seconds, self.sampled_tokens = rows[-1]["seconds"], rows[-1].get("sampled_tokens", 0)
        self.last_step = max((row["step"] for row in rows if "completions/mean_length" in row), default=0)
        self.begin = time.perf_counter() - self.seconds

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps or control.should_training_stop:
            control.should_log = True  # the steps since the last log, whatever logging_steps is

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not hasattr(self, "begin"):
            return
        self.seconds = time.perf_counter() - self.begin
        row = {"step": state.global_step, "max_steps": state.max_steps, "seconds": round(self.seconds, 3), **logs}
        if "completions/mean_length" in logs:
            batches = generations(args, state.global_step) - generations(args, self.last_step)
            self.sampled_tokens += round(logs["completions/mean_length"] * batches * args.generation_batch_size)
            self.sampled_tokens += round(logs.get(REFERENCE_TOKENS, 0))
            self.last_step = state.global_step
        if self.sampled_tokens:
            row["sampled_tokens"] = self.sampled_tokens
        line = _line({k: v if isinstance(v, int | float | str) else str(v) for k, v in row.items()})
        with full_disk(self.path), self.path.open("a") as file:
            file.write(line)

    def summary(self) -> dict:
        """`train_seconds`, `sampled_tokens` and `peak_memory_mb` of this process for the stage's record."""
        return {
            "train_seconds": round(self.seconds, 1),
            "sampled_tokens": self.sampled_tokens,
            "peak_memory_mb": round(peak_memory_mb(), 1),
        }


def generations(args, step: int) -> int:
    """Generation batches that TRL has sampled once `step` optimizer steps are done.

    One batch serves `steps_per_generation * num_iterations` micro-steps; a step has `gradient_accumulation_steps`.
    """
    return math.ceil(step * args.gradient_accumulation_steps / (args.steps_per_generation * args.num_iterations))


def peak_memory_mb() -> float:
    """CUDA memory allocated at most, in MiB; without CUDA, this process's resident memory at most."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _line(row: dict) -> str:
    """A row as strict JSON: null for what is no finite number."""
    return json.dumps(finite(row), allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict]:
    """Rows of a metrics.jsonl, NaN for null; a line torn by a crash, or damaged otherwise, is left out."""
    with Path(path).open("rb") as file:
        rows = [as_row(line) for line in file]
    rows = [row and {key: math.nan if value is None else value for key, value in row.items()} for row in rows]
    return [row for row in rows if row and isinstance(row.get("step"), int | float)]


def as_row(line: bytes) -> dict | None:
    """The JSON object of a line; None for anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        row = json.loads(line)
        return row if isinstance(row, dict) else None
