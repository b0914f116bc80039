"""Runs below a folder as a page shows them: their names and groups, what they logged, their alerts and samples.

Whatever stands in the files, a page gets numbers that are finite and texts that are text; nothing is written, and no
lock is opened.
"""

import functools
import os
import time
from pathlib import Path

from evaluation.report.log_files import count_lines, is_line_start, last_rows, rows_after
from evaluation.report.settings import CONFIG, NAMES, about
from rlhf_trl_ext.data.samples import finite_number, text_of

METRICS = "metrics.jsonl"
STAGES = "stages"  # the folder that pipelines share their stages in
DEPTHS = (METRICS, f"*/{METRICS}", f"*/*/{METRICS}", f"*/*/*/{METRICS}")
LONGEST = 2_000  # characters of a text that are shown
ALERTS = 200  # the latest, that are shown
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError)


class LoggedRuns:
    """Every run with a `metrics.jsonl` at most three folders below `root`; links to one are not counted twice.

    Files that lie outside the root, by a link, are not read. Raises ValueError if `root` is no folder.
    """

    def __init__(self, root: str | Path):
        self.root, self.title = Path(root).resolve(), str(root)
        if not self.root.is_dir():
            raise ValueError(f"output_root={root}: no such folder; give one that holds runs.")

    def folders(self) -> dict[str, Path]:
        """Run name, its path below the root, -> folder; those that changed last first."""
        return {str(folder.relative_to(self.root)): folder for folder in self._places()}

    def _places(self) -> dict[Path, list[Path]]:
        """Folder of a run -> the paths that lead to it, those that changed last first."""
        places: dict[Path, list[Path]] = {}
        for path in (path.parent for pattern in DEPTHS for path in self.root.glob(pattern)):
            places.setdefault(path.resolve(), []).append(path)
        times = {folder: _changed(folder / METRICS) for folder in places if folder.is_relative_to(self.root)}
        return {folder: places[folder] for folder in sorted(times, key=lambda folder: -times[folder])}

    def _file(self, folder: Path, name: str) -> Path | None:
        """A regular file of a run; None where there is none. Raises ValueError for one outside the root."""
        path = (folder / name).resolve()
        if path.exists() and not path.is_relative_to(self.root):
            raise ValueError(f"{name} is a link out of the folder that is shown, and is not read.")
        return path if path.is_file() else None

    def summaries(self) -> list[dict]:
        """Every run: what `_summary` gives, and a label that no other has, `demo/grpo`."""
        rows = [self._summary(folder, paths) for folder, paths in self._places().items()]
        for part in ("learning_rate", "name"):  # what sets equal labels apart
            labels = [row["label"] for row in rows]
            for row in rows:
                if labels.count(row["label"]) > 1 and row[part]:
                    row["label"] += f" {row[part]}"
        return rows

    def _summary(self, folder: Path, paths: list[Path]) -> dict:
        """name, group (its pipeline, else the folder that it lies in), stage, data, model, learning_rate, label; status
        (running, finished, stopped, unreadable), step, max_steps, age in seconds, alerts, problem."""
        groups = sorted(str(path.parent.relative_to(self.root)) for path in paths)
        group = next((own for own in groups if own != STAGES), groups[0])
        row = {"name": str(folder.relative_to(self.root)), "group": "" if group == "." else group}
        own = about(folder) if (folder / CONFIG).resolve().is_relative_to(self.root) else dict.fromkeys(NAMES, "")
        row |= {**own, "stage": own["stage"] or folder.name}
        row["label"] = "/".join(filter(None, [row["group"] if group != STAGES else "", row["stage"]]))
        row |= {"status": "unreadable", "step": 0, "max_steps": 0, "alerts": 0, "problem": ""}
        row["age"] = round(time.time() - _changed(folder / METRICS))
        try:
            last = next(iter(last_rows(self._file(folder, METRICS), 1)), {})
            alerts = self._file(folder, "alerts.jsonl")
            row |= {key: int(finite_number(last.get(key)) or 0) for key in ("step", "max_steps")}
            row["alerts"] = count_lines(alerts) if alerts else 0
            finished = self._file(folder, "stage.json")
            row["status"] = "finished" if finished else "running" if _locked(folder) else "stopped"
        except UNREADABLE as error:
            row["problem"] = str(error) or type(error).__name__
        return row

    def logged(self, name: str, after: int = 0) -> dict:
        """rows: what was logged from byte `after` on, numbers only; next: the byte to ask for then; alerts: the latest.

        Long logs are thinned, see `rows_after`. A run that resumed has another file than was read: then all is given
        again, and `restarted` is true. Raises KeyError for a run that is not there.
        """
        folder = self.folders()[name]
        try:
            path = self._file(folder, METRICS)
            restarted = not is_line_start(path, after)
            rows, end = rows_after(path, 0 if restarted else after)
            return {
                "rows": [_numbers(row) for row in rows],
                "next": end,
                "restarted": restarted,
                "alerts": self._alerts(folder),
            }
        except UNREADABLE as error:
            return {"rows": [], "next": after, "restarted": False, "alerts": [], "problem": str(error)}

    def _alerts(self, folder: Path) -> list[dict]:
        """Those that the run recorded; of one without a monitor what the standard rules say of its log."""
        path = self._file(folder, "alerts.jsonl")
        if path is None:
            log = self._file(folder, METRICS)
            rows = standard_alerts(log, log.stat().st_size, log.stat().st_mtime_ns)[-ALERTS:][::-1]
        else:
            rows = last_rows(path, ALERTS)
        texts = ("rule", "metric", "message")
        return [
            {"step": finite_number(row.get("step")) or 0, **{key: _text(row.get(key, "")) for key in texts}}
            for row in rows
        ]

    def samples(self, name: str, most: int = 12) -> list[dict]:
        """Samples of a run, newest first: those that TRL logged and those of alerts, or what its pipeline drew."""
        folder = self.folders()[name]
        try:
            kept, recorded = self._file(folder, "alert_samples.jsonl"), self._drawn(folder)
            rows = self._completions(folder, most)
            rows += [{**row, "of": f"alert {row.get('rule')}"} for row in (last_rows(kept, most) if kept else [])]
            rows.sort(key=lambda row: -(finite_number(row.get("step")) or 0))
            rows = rows or (last_rows(recorded, most) if recorded else [])
            return [_plain(row) for row in rows[:most]]
        except UNREADABLE as error:
            return [{"step": None, "of": "unreadable", "prompt": str(error), "completion": "", "rewards": {}}]

    def _drawn(self, folder: Path) -> Path | None:
        """samples.jsonl of a sampling stage, or of the one that a pipeline has for this stage."""
        paths = [folder, *(path.with_name(f"samples-{path.name}") for path in self._places()[folder])]
        return next(filter(None, (self._file(path, "samples.jsonl") for path in paths)), None)

    def _completions(self, folder: Path, most: int) -> list[dict]:
        """Of the newest table that `args.log_completions=true` leaves."""
        tables = sorted((folder / "completions").glob("*.parquet"))
        path = self._file(folder, f"completions/{tables[-1].name}") if tables else None
        if path is None:
            return []
        import pyarrow.parquet

        try:
            batch = next(pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=most), None)
        except (OSError, pyarrow.ArrowInvalid):  # it is being written
            return []
        fixed = ("step", "prompt", "completion", "advantage")
        rows = batch.to_pylist() if batch else []
        return [{**row, "rewards": {k: v for k, v in row.items() if k not in fixed}, "of": "training"} for row in rows]


@functools.lru_cache(maxsize=256)
def standard_alerts(path: Path, size: int, changed: int) -> list[dict]:
    """What the rules of monitor=standard say of a log. size, changed: of the file; a longer one is read again."""
    from rlhf_trl_ext.callbacks.stability import StabilityMonitor  # takes seconds to import

    rules = StabilityMonitor().rules
    rows = [_numbers(row) for row in rows_after(path, 0)[0] if "loss" in row]
    return [{"step": row.get("step"), **alert} for row in rows for alert in rules.update(row)]


def _plain(row: dict) -> dict:
    rewards = row.get("rewards") or {k: v for k, v in row.items() if k in ("reward", "gold_reward", "kl")}
    texts = {key: _text(row.get(key, ""))[:LONGEST] for key in ("prompt", "completion")}
    of = _text(row.get("of", "held-out prompts"))
    return {"step": finite_number(row.get("step")), "of": of, **texts, "rewards": _numbers(rewards)}


def _text(messages) -> str:
    """Text of anything: of messages, what they say."""
    try:
        return text_of(messages)
    except UNREADABLE:
        return str(messages)


def _numbers(row: dict) -> dict:
    """The finite numbers of a row."""
    return {str(name): value for name, value in row.items() if finite_number(value) is not None}


def _changed(path: Path) -> float:
    """When a file was last written; 0 where it is gone by now."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _locked(folder: Path) -> bool:
    """Whether a run holds the folder's lock (`stages.exclusive`), by the kernel's own list: the lock is not opened."""
    try:
        status = (folder / ".lock").stat()
        held = Path("/proc/locks").read_text()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return f" {device}:{status.st_ino} " in held
