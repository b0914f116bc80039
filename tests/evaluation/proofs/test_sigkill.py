import json

import pytest
from command_lines import python

from evaluation.proofs.faults import sigkill


def test_what_a_kill_left_is_told(tmp_path):
    from rlhf_trl_ext.stages.checkpoints import mark

    assert sigkill.state_after_kill(tmp_path) == (0, "before a checkpoint", False)
    for step in (3, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    mark(tmp_path / "checkpoint-3")
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n{"step": 6}\n{"ste')
    assert sigkill.state_after_kill(tmp_path) == (3, "in a save", False)
    (tmp_path / "metrics.jsonl").write_text('{"step": 8}\n')  # checkpoint-6 was whole by then
    assert sigkill.state_after_kill(tmp_path) == (3, "in a save", True)


@pytest.mark.slow
def test_killed_runs_resume_to_what_their_twins_are(tmp_path):
    options = ("--kills", "2", "--seed", "1", "--output", str(tmp_path), "--algorithms", "ppo", "grpo_offpolicy")
    done = python("-m", "evaluation.proofs.faults.sigkill", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["kills"], summary["equal"], summary["lost"]) == (2, 2, 0)
