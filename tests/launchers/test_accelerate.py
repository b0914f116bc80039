import json
import os
import subprocess
from pathlib import Path
from sys import executable

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


def test_two_processes_train_together(few, tmp_path):
    """By the command of the README; tests/test_equality.py compares what they learn."""
    accelerate = Path(executable).with_name("accelerate")
    launch = [accelerate, "launch", "--multi_gpu", "--num_processes", "2", "-m", "launchers.train"]
    online = [
        "++trainer.reward_funcs=[{_target_: conftest.DistinctCharacters}]",
        "++args.max_completion_length=8",
        "trust=[conftest]",
    ]
    done = subprocess.run(
        [*launch, "algorithm=grpo", f"output_root={tmp_path}", *few, *online],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("grpo: 4 steps") == 1
    (folder,) = tmp_path.glob("stages/grpo-*")
    assert json.loads((folder / "stage.json").read_text())["world_size"] == 2
