"""What is shown of a pipeline's stages while they run, and of those that have ended."""

import io
import json

from rich.console import Console

from rlhf_trl_ext.stages.display import TAIL, Display, progress


def screen(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def log(folder, *rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "metrics.jsonl"


def test_a_stage_shows_step_reward_and_time_left(tmp_path):
    rows = [{"step": step, "max_steps": 40, "seconds": 3.0 * step, "reward": step / 10} for step in (5, 10)]
    rows += [{"step": 10, "max_steps": 40, "seconds": 31.0, "eval_loss": 1.0}]
    # 31 seconds for 10 of 40 steps: 93 are left.
    assert progress(log(tmp_path, *rows), 35.0) == ("10/40", "reward 1", "1:33")
    assert progress(tmp_path / "absent", 65.0) == ("", "", "(runs for 1:05)")


def test_only_the_last_rows_of_a_long_log_are_read(tmp_path):
    row = {"max_steps": 900, "more": "x" * 500}
    rows = [{"step": step, "seconds": step, "loss": step, **row} for step in range(1, 900)]
    path = log(tmp_path, {"torn": True}, *rows)
    assert path.stat().st_size > 4 * TAIL
    assert progress(path, 0.0) == ("899/900", "loss 899", "0:01")


def test_a_terminal_shows_one_table_of_what_runs(tmp_path):
    log(tmp_path, {"step": 1, "max_steps": 4, "seconds": 2.0, "loss": 0.5})
    display = Display(["sft", "dpo"], screen(terminal=True))
    with display:
        display.begin("sft", tmp_path)
        console = screen(terminal=False)
        console.print(display.table())
        shown = [line.split() for line in console.file.getvalue().splitlines()]
        assert shown[0] == ["stage", "step", "loss", "or", "reward", "time", "left"]
        assert shown[1] == ["sft", "1/4", "loss", "0.5", "0:06"]
        assert shown[2][:4] == ["0", "of", "2", "stages,"]
        display.end("sft", "7 s", tmp_path)
        assert display.table().row_count == 0 and display.ended == 1


def test_elsewhere_there_are_only_lines(tmp_path):
    display = Display(["sft", "samples-sft"], screen(terminal=False))
    with display:
        display.begin("sft", tmp_path)
        display.end("sft", "7 s", tmp_path)
        display.end("samples-sft", "reused", tmp_path)
    lines = display.console.file.getvalue().splitlines()
    assert lines == [f"sft          7 s       {tmp_path}", f"samples-sft  reused    {tmp_path}"]
