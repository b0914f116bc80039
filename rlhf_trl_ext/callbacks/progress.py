"""Progress of training in one line, in place of transformers' bar and dictionaries of metrics."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar

# Of a log, those that a line has room for.
METRICS = ("reward", "rewards/accuracies", "accuracy", "loss", "kl")
COLUMNS = ("{task.description}", BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[metrics]}"))


def in_words(metrics: dict, prefix: str = "") -> str:
    """The metrics that a line shows of a log, of held-out rows with the prefix `eval_`; "" where it has none."""
    values = {name: metrics.get(prefix + name) for name in METRICS}
    numbers = [f"{prefix}{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)]
    return "  ".join(numbers)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class ProgressLine(TrainerCallback):
    """Step, loss or reward, and time left: a live line in a terminal, elsewhere a line whenever the trainer logs.

    As a context it takes the live line away at the end, so that what is printed last, such as an error, stands alone.
    """

    def __init__(self, name: str, console: Console | None = None):
        self.name, self.console = name, console or Console(highlight=False, soft_wrap=True)
        self.bars: Bars | None = None

    def attach(self, trainer) -> None:
        """Take the place of transformers' callbacks."""
        for callback in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.begin, self.first = time.perf_counter(), state.global_step
        if state.is_world_process_zero and self.console.is_terminal and not args.disable_tqdm:
            disable_progress_bar()  # of checkpoints, which would be written across the line
            self.bars = Bars(*COLUMNS, TimeRemainingColumn(), console=self.console, transient=True)
            settings = {"total": state.max_steps, "completed": state.global_step, "metrics": ""}
            self.task = self.bars.add_task(self.name, **settings)
            self.bars.start()

    def on_step_end(self, args, state, control, **kwargs):
        if self.bars is not None:
            self.bars.update(self.task, completed=state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        trained, held_out = in_words(logs), in_words(logs, "eval_")
        if not state.is_world_process_zero or not (trained or held_out):
            return
        if self.bars is not None and trained:
            self.bars.update(self.task, metrics=trained)
        else:
            step = f"step {state.global_step}/{state.max_steps}"
            self.console.print("  ".join(filter(None, (self.name, step, trained, held_out, self._left(state)))))

    def _left(self, state) -> str:
        done = state.global_step - self.first
        if done < 1 or state.global_step >= state.max_steps:
            return ""
        seconds = (time.perf_counter() - self.begin) / done * (state.max_steps - state.global_step)
        return f"{duration(seconds)} left"
