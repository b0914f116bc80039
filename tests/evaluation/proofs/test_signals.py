import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_signals_leave_no_process_and_no_result_that_was_not_reached(tmp_path):
    command = [
        sys.executable,
        "-m",
        "evaluation.proofs.faults.signals",
        *("--signals", "1", "--kinds", "pipeline", "--output", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["signals"], summary["left"], summary["unreached"], summary["equal"]) == (1, 0, 0, 1)
