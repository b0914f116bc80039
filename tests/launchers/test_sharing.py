"""A pipeline that is killed, and two at once that take it up."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from rlhf_trl_ext.callbacks.records import read_metrics

pytestmark = pytest.mark.slow


def start(tmp_path, *arguments):
    command = [sys.executable, "-m", "launchers.pipeline", "experiment=smoke", "policies=[dpo]", "reward=gold"]
    command += ["samples.max_prompts=16", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command.append(f"output_root={tmp_path}")
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1, start_new_session=True)


def test_two_pipelines_that_share_stages_take_up_a_killed_one_and_train_each_stage_once(tmp_path):
    longer = ["stages.sft.args.max_steps=60", "stages.sft.args.save_steps=10", "stages.sft.args.logging_steps=1"]
    process = start(tmp_path, *longer)
    deadline = time.time() + 120
    while not list(tmp_path.glob("stages/sft-*/checkpoint-20/trainer_state.json")) and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (metrics,) = tmp_path.glob("stages/sft-*/metrics.jsonl")
    assert not (metrics.parent / "stage.json").exists(), "the stage ended before it was killed"

    both = [start(tmp_path, *longer, f"output_dir={tmp_path}/{name}") for name in "ab"]
    for process in both:
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    assert first == second
    for path in tmp_path.glob("stages/*/metrics.jsonl"):
        finished = [row for row in read_metrics(path) if "train_runtime" in row]
        assert len(finished) == 1, path
    steps = [row["step"] for row in read_metrics(metrics) if "loss" in row]
    assert steps == list(range(1, 61))  # nothing lost, nothing twice
