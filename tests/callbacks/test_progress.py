"""The line that takes the place of dictionaries of metrics."""

import io
import json
import os
from types import SimpleNamespace

import pytest
from rich.console import Console

from rlhf_trl_ext.callbacks import progress
from rlhf_trl_ext.callbacks.progress import ProgressLine, duration, in_words
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.mistakes import report_user_errors

ARGS = SimpleNamespace(disable_tqdm=False)


def state(step):
    return SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=True)


def shown(monkeypatch, terminal):
    """What a console shows of a run of ten steps that goes on at step 2 and takes 3 seconds a step."""
    times = iter([0.0, 9.0, 24.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    console = Console(file=io.StringIO(), force_terminal=terminal, width=90, soft_wrap=True, color_system=None)
    line = ProgressLine("dpo", console)
    with line:
        line.on_train_begin(ARGS, state(2), None)
        line.on_step_end(ARGS, state(5), None)
        line.on_log(ARGS, state(5), None, logs={"loss": 0.69314, "grad_norm": 1.0})
        if not terminal:
            line.on_log(ARGS, state(10), None, logs={"eval_loss": 0.5, "eval_runtime": 3.0})
            line.on_log(ARGS, state(10), None, logs={"train_runtime": 30.0})
        assert (line.bars is not None) == terminal
        if terminal:
            (task,) = line.bars.tasks
            assert (task.completed, task.total, task.fields["metrics"]) == (5, 10, "loss 0.6931")
    assert line.bars is None
    return console.file.getvalue()


def test_a_line_a_log_where_there_is_no_terminal(monkeypatch):
    # Three steps in 9 seconds: the other five take 15.
    assert shown(monkeypatch, terminal=False).splitlines() == [
        "dpo  step 5/10  loss 0.6931  0:15 left",
        "dpo  step 10/10  eval_loss 0.5",
    ]


def test_a_live_line_in_a_terminal_that_is_gone_at_the_end(monkeypatch):
    text = shown(monkeypatch, terminal=True)
    assert "5/10" in text and text.endswith(("\x1b[2K", "\x1b[?25h", "\x1b[1A"))


def test_metrics_and_times_in_words():
    assert in_words({"loss": 0.5, "reward": 1, "kl": None}) == "reward 1  loss 0.5"
    assert in_words({"eval_reward": 0.25, "loss": 1.0}, "eval_") == "eval_reward 0.25"
    assert (duration(59.6), duration(61), duration(3723)) == ("1:00", "1:01", "1:02:03")


@pytest.mark.parametrize("error", [ConfigError("args.beta=-1: above 0."), RuntimeError("no\nmemory")])
def test_the_launcher_of_torch_is_left_the_reason(error, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises((SystemExit, RuntimeError)), report_user_errors():
        raise error
    reason = json.loads((tmp_path / "error.json").read_text())["message"]
    assert reason["message"] in ("error: args.beta=-1: above 0.", "RuntimeError: no memory")
    assert reason["extraInfo"]["timestamp"] > 1e9
