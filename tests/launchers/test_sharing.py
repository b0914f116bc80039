"""Two pipelines at once, and a pipeline that is killed."""

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
    command = [sys.executable, "-m", "launchers.pipeline", "experiment=smoke", "policies=[dpo]", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command.append(f"output_root={tmp_path}")
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1, start_new_session=True)


def test_two_pipelines_that_share_stages_train_each_stage_once(tmp_path):
    both = [start(tmp_path, f"output_dir={tmp_path}/{name}") for name in "ab"]
    for process in both:
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    assert first == second
    for metrics in tmp_path.glob("stages/*/metrics.jsonl"):
        finished = [row for row in read_metrics(metrics) if "train_runtime" in row]
        assert len(finished) == 1, metrics


def test_a_killed_pipeline_takes_up_where_it_was(tmp_path):
    longer = ["stages.sft.args.max_steps=60", "stages.sft.args.save_steps=10", "stages.sft.args.logging_steps=1"]
    process = start(tmp_path, *longer)
    deadline = time.time() + 120
    while not list(tmp_path.glob("stages/sft-*/checkpoint-20/trainer_state.json")) and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (metrics,) = tmp_path.glob("stages/sft-*/metrics.jsonl")
    assert not (metrics.parent / "stage.json").exists(), "the stage ended before it was killed"
    again = start(tmp_path, *longer)
    _, stderr = again.communicate(timeout=600)
    assert again.returncode == 0, stderr
    steps = [row["step"] for row in read_metrics(metrics) if "loss" in row]
    assert steps == list(range(1, 61))  # nothing lost, nothing twice
    runtime = [row for row in read_metrics(metrics) if "train_runtime" in row]
    assert len(runtime) == 1 and (tmp_path / "smoke" / "results.json").exists()
