"""What the README promises of `make demo`, on one seed."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


def test_the_demo_keeps_its_promises(tmp_path):
    command = [sys.executable, "-m", "launchers.pipeline", "experiment=demo", f"output_root={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert 0.80 <= results["stages"]["reward"]["metrics"]["eval_accuracy"] <= 0.95
    assert 0.4 <= results["baseline_result"]["gold_reward_mean"] <= 0.65
    for name, policy in results["policies"].items():
        assert policy["win_rate_ci"][0] > 0.5, name
        assert policy["gold_reward_mean"] > results["baseline_result"]["gold_reward_mean"], name
