import json

import pytest
from command_lines import python


@pytest.mark.slow
def test_signals_leave_no_process_and_no_result_that_was_not_reached(tmp_path):
    options = ("--signals", "1", "--kinds", "pipeline", "--output", str(tmp_path / "out"))
    done = python("-m", "evaluation.proofs.faults.signals", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["signals"], summary["left"], summary["unreached"], summary["equal"]) == (1, 0, 0, 1)
