"""The stages of pipelines as they run: one live table in a terminal, a line for every stage that has ended anywhere."""

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rlhf_trl_ext.callbacks.progress import METRICS, duration, in_words
from rlhf_trl_ext.callbacks.records import as_row

COUNTED = ("step", "max_steps", "seconds")
TAIL = 1 << 16  # bytes of a log that hold its last rows


class Display:
    """Stages under way with their step, loss or reward, and time left. As a context it shows them.

    labels: of all stages, those not begun as well. console: by default standard output.
    """

    def __init__(self, labels: list[str], console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.total, self.ended, self.start = len(labels), 0, time.monotonic()
        self.width = max(map(len, labels), default=0)
        self.running: dict[str, tuple[Path, float]] = {}  # label -> folder, when it began
        self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=1, transient=True)

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        self.live.stop()

    def begin(self, label: str, folder: Path) -> None:
        self.running[label] = (folder, time.monotonic())

    def end(self, label: str, how: str, folder: Path) -> None:
        """how: seconds that it took, or what became of it."""
        self.running.pop(label, None)
        self.ended += 1
        self.line(label, f"{how:<8}  {folder}")

    def line(self, label: str, text: str) -> None:
        """Something about a stage that stays."""
        self.console.print(f"{label:<{self.width}}  {text}", soft_wrap=True)

    def table(self) -> Table:
        grid = Table("stage", "step", "loss or reward", "time left", box=None, header_style="bold", pad_edge=False)
        for label, (folder, begin) in list(self.running.items()):
            grid.add_row(label, *progress(folder / "metrics.jsonl", time.monotonic() - begin))
        grid.caption = f"{self.ended} of {self.total} stages, {duration(time.monotonic() - self.start)}"
        grid.caption_justify = "left"
        return grid


def progress(log: Path, seconds: float) -> tuple[str, str, str]:
    """Step, metrics and time left by the last rows of a metrics.jsonl; without any, how long it runs."""
    rows = _last_rows(log)
    if not rows:
        return "", "", f"(runs for {duration(seconds)})"
    latest = {name: row[name] for row in rows for name in METRICS if row.get(name) is not None}
    step, most = rows[-1]["step"], rows[-1]["max_steps"]
    left = duration(rows[-1]["seconds"] / step * (most - step)) if step else ""
    return f"{step}/{most}", in_words(latest), left


def _last_rows(log: Path) -> list[dict]:
    """The last whole rows that carry a step."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        begin = max(0, log.stat().st_size - TAIL)
        file.seek(begin)
        lines = file.read().splitlines()[1 if begin else 0 :]
    rows = [row for line in lines if (row := as_row(line))]
    return [row for row in rows if all(isinstance(row.get(name), int | float) for name in COUNTED)]
