import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_predictions_are_within_a_tenth_of_what_is_measured(tmp_path):
    # A reward model with LoRA, DPO with checkpointing, PPO with LoRA and three models.
    command = [sys.executable, "-m", "evaluation.proofs.memory.check", "--only", "7", "10", "15"]
    subprocess.run([*command, "--output", str(tmp_path / "rows.json")], cwd=ROOT, check=True)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["algorithm"] for row in rows] == ["reward", "dpo", "ppo"]
    for row in rows:
        assert row["predicted"] == pytest.approx(row["measured"], rel=0.1), row
