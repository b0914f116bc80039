"""Replay in two processes on CPU, DDP over gloo and ZeRO-2: equal batches, shards that share no group, exact resume."""

import json
from pathlib import Path

import distributed
import pytest

LAUNCH = {how: distributed.LAUNCH[how] for how in ("ddp", "zero2")}
SETTINGS = {**distributed.SETTINGS, "num_generations": 4}


def run(policy, folder, how=None, **settings):
    """What every process wrote; a process samples one group at a time, one alone two."""
    settings = {**SETTINGS, "per_device_train_batch_size": 4 if how else 8, **settings}
    worker = str(Path(__file__).with_name("replay_worker.py"))
    done = distributed.run([worker, policy, str(folder), json.dumps(settings)], LAUNCH.get(how))
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

    # the shards of two processes are dealt to one
    dealt = run(policy, tmp_path / "dealt", resume=str(tmp_path / "two" / "checkpoint-2"))[0]["batches"][0]
    before = {key for rank in ranks for key in rank["batches"][1]["stored"]}
    assert set(dealt["drawn"]) <= before and {*dealt["stored"], *dealt["drawn"]} >= before
    if how == "ddp":
        (tmp_path / "two" / "checkpoint-2" / "replay_1.safetensors").unlink()
        refusal = run(policy, tmp_path / "refused", how, resume=str(tmp_path / "two" / "checkpoint-2"))
        assert "replay_1.safetensors is missing: the replay buffer cannot be restored" in refusal


@pytest.mark.slow
def test_groups_that_straddle_processes_are_refused(policy, tmp_path):
    refusal = run(policy, tmp_path, "ddp", num_generations=8)
    assert "num_generations=8: a process samples 4 completions at a time" in refusal
