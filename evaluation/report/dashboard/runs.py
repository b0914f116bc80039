"""Runs below a folder as a page shows them: what they logged, their alerts and their samples."""

import fcntl
import json
import math
import time
from pathlib import Path

from rlhf_trl_ext.callbacks.records import read_metrics

DEPTHS = ("metrics.jsonl", "*/metrics.jsonl", "*/*/metrics.jsonl", "*/*/*/metrics.jsonl")
LONGEST = 2_000  # characters of a text that are shown


class Runs:
    """Every run with a `metrics.jsonl` at most three folders below `root`; links to one are not counted twice.

    Raises ValueError if `root` is no folder.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise ValueError(f"output_root={root}: no such folder; give one that holds runs.")

    def folders(self) -> dict[str, Path]:
        """Run name, its path below the root, -> folder; those that changed last first."""
        found = {path.resolve().parent for pattern in DEPTHS for path in self.root.glob(pattern)}
        found = {folder for folder in found if folder.is_relative_to(self.root)}
        ordered = sorted(found, key=lambda folder: -(folder / "metrics.jsonl").stat().st_mtime)
        return {str(folder.relative_to(self.root)): folder for folder in ordered}

    def summaries(self) -> list[dict]:
        """name, status (running, finished, stopped), step, max_steps, age in seconds, alerts."""
        return [self._summary(name, folder) for name, folder in self.folders().items()]

    def _summary(self, name: str, folder: Path) -> dict:
        row = _last(folder / "metrics.jsonl")
        status = "finished" if (folder / "stage.json").exists() else "running" if _locked(folder) else "stopped"
        age = time.time() - (folder / "metrics.jsonl").stat().st_mtime
        counts = {"step": row.get("step", 0), "max_steps": row.get("max_steps", 0), "alerts": len(_alerts(folder))}
        return {"name": name, "status": status, "age": round(age), **counts}

    def logged(self, name: str, after: int = 0) -> dict:
        """rows: from line `after` on, numbers only; next: the line to ask for then; alerts: all.

        A run that resumed has fewer lines than were read: then all are given again, and `restarted` is true. Raises
        KeyError for a run that is not there.
        """
        folder = self.folders()[name]
        rows = read_metrics(folder / "metrics.jsonl")
        restarted = after > len(rows)
        new = [{k: v for k, v in row.items() if _number(v)} for row in rows[0 if restarted else after :]]
        return {"rows": new, "next": len(rows), "restarted": restarted, "alerts": _alerts(folder)}

    def samples(self, name: str, most: int = 12) -> list[dict]:
        """Samples of a run, newest first: TRL's logged completions, those of alerts, or of a sampling stage."""
        folder = self.folders()[name]
        rows = _completions(folder, most)
        kept = folder / "alert_samples.jsonl"
        rows += [{**row, "of": f"alert {row['rule']}"} for row in _tail(kept, most)]
        rows.sort(key=lambda row: -row.get("step", 0))
        return [_shown(row) for row in (rows or _tail(folder / "samples.jsonl", most))[:most]]


def _completions(folder: Path, most: int) -> list[dict]:
    """Of the newest table that `args.log_completions=true` leaves."""
    tables = sorted((folder / "completions").glob("*.parquet"))
    if not tables:
        return []
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(tables[-1]).to_pylist()[:most]
    except (OSError, pyarrow.ArrowInvalid):  # it is being written
        return []
    fixed = ("step", "prompt", "completion", "advantage")
    return [{**row, "rewards": {k: v for k, v in row.items() if k not in fixed}, "of": "training"} for row in rows]


def _shown(row: dict) -> dict:
    rewards = row.get("rewards") or {k: v for k, v in row.items() if k in ("reward", "gold_reward", "kl")}
    texts = {key: _text(row.get(key, ""))[:LONGEST] for key in ("prompt", "completion")}
    return {"step": row.get("step"), "of": row.get("of", "held-out prompts"), **texts, "rewards": _finite(rewards)}


def _text(messages) -> str:
    if isinstance(messages, str):
        return messages
    return "\n".join(str(message.get("content")) for message in messages)


def _finite(rewards: dict) -> dict:
    return {name: value for name, value in rewards.items() if _number(value)}


def _number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _alerts(folder: Path) -> list[dict]:
    path = folder / "alerts.jsonl"
    return read_metrics(path) if path.exists() else []


def _tail(path: Path, most: int) -> list[dict]:
    return read_metrics(path)[-most:][::-1] if path.exists() else []


def _last(path: Path) -> dict:
    """The last whole line, without reading the file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16))
        for line in reversed(file.read().splitlines()):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
    return {}


def _locked(folder: Path) -> bool:
    """Whether a run holds the folder's lock (`stages.exclusive`)."""
    path = folder / ".lock"
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
