"""Replay in two processes on CPU, DDP over gloo and ZeRO-2: equal batches, shards that share no group, exact resume."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

LAUNCH = {"ddp": ["--multi_gpu"], "zero2": ["--use_deepspeed", "--zero_stage", "2"]}
SETTINGS = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "steps_per_generation": 1,
    "num_generations": 4,
    "max_completion_length": 8,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-5,
}


def run(policy, folder, how=None, **settings):
    """What every process wrote; a process samples one group at a time, one alone two."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port, *LAUNCH.get(how, [])]
    settings = {**SETTINGS, "per_device_train_batch_size": 4 if how else 8, **settings}
    worker = str(Path(__file__).with_name("replay_worker.py"))
    command = [sys.executable, *(launch if how else []), worker, policy, str(folder), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        return done.stderr
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("rank*.json"))]


@pytest.fixture(scope="module")
def alone(policy, tmp_path_factory):
    return run(policy, tmp_path_factory.mktemp("alone"))[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", LAUNCH)
def test_two_processes_replay_alike_and_resume(policy, alone, tmp_path, how):
    ranks = run(policy, tmp_path / "two", how)
    assert [rank["world"] for rank in ranks] == [2, 2]
    for place, (first, second, one) in enumerate(zip(*(r["batches"] for r in ranks), alone["batches"], strict=True)):
        assert first["rows"] == second["rows"] == (4 if place == 0 else 8)
        assert not {*first["stored"], *first["drawn"]} & {*second["stored"], *second["drawn"]}
        assert len(first["drawn"]) == len(second["drawn"]) == (place > 0)
        # what two processes sample is what one samples, with the same advantages
        for ours, theirs in zip(sorted(first["fresh"] + second["fresh"]), one["fresh"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)

    resumed = run(policy, tmp_path / "resumed", how, resume=str(tmp_path / "two" / "checkpoint-2"))
    for rank, again in zip(ranks, resumed, strict=True):
        assert again["losses"] == rank["losses"] and again["batches"] == rank["batches"][2:]

    # the shards of two processes are dealt to one; without one of them it is refused
    dealt = run(policy, tmp_path / "dealt", resume=str(tmp_path / "two" / "checkpoint-2"))[0]["batches"][0]
    before = {key for rank in ranks for key in rank["batches"][1]["stored"]}
    assert set(dealt["drawn"]) <= before and {*dealt["stored"], *dealt["drawn"]} >= before
    (tmp_path / "two" / "checkpoint-2" / "replay_1.safetensors").unlink()
    told = run(policy, tmp_path / "refused", how, resume=str(tmp_path / "two" / "checkpoint-2"))
    assert "replay_1.safetensors is missing: the replay buffer cannot be restored" in told


@pytest.mark.slow
def test_groups_that_straddle_processes_are_refused(policy, tmp_path):
    told = run(policy, tmp_path, "ddp", num_generations=8)
    assert "num_generations=8: a process samples 4 completions at a time" in told
