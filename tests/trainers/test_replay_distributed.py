"""Replay in two processes on CPU, DDP over gloo and ZeRO-2: equal batches, shards that share no group, exact resume."""

import json
from pathlib import Path

import distributed
import pytest
from trainers import replay_worker

SETTINGS = {**distributed.SETTINGS, "num_generations": 4}
# A process samples one group at a time, one alone two.
ALONE, TWO = ({**SETTINGS, "per_device_train_batch_size": rows} for rows in (8, 4))


def alone(policy, folder, **settings):
    """What one process, this one, trained on."""
    replay_worker.run(policy, str(folder), ALONE | settings)
    return json.loads((folder / "rank0.json").read_text())["batches"]


def together(policy, folder, how):
    """What each of two processes wrote, by run, and what they printed; one launch, as importing takes longer."""
    two, damaged = folder / "two", folder / "two" / "checkpoint-3"
    runs = {"straddling": TWO | {"num_generations": 8, "refused": True}, "two": TWO}
    runs["resumed"] = TWO | {"resume": str(two / "checkpoint-2")}
    if how == "ddp":
        runs["damaged"] = TWO | {"resume": str(damaged), "without": str(damaged / "replay_1.safetensors")}
    runs = {str(folder / name): settings for name, settings in runs.items()}
    worker = str(Path(__file__).with_name("replay_worker.py"))
    done = distributed.run([worker, policy, json.dumps(runs)], how)
    assert (done.returncode == 0) == (how != "ddp"), done.stderr[-3000:]
    written = {name: sorted(Path(name).glob("rank*.json")) for name in runs}
    ranks = {Path(name).name: [json.loads(path.read_text()) for path in paths] for name, paths in written.items()}
    return ranks, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "zero2"])
def test_two_processes_replay_alike_and_resume(policy, tmp_path, how):
    runs, printed = together(policy, tmp_path, how)
    ranks, one = runs["two"], alone(policy, tmp_path / "alone")
    assert [rank["world"] for rank in ranks] == [2, 2]
    for place, (first, second, single) in enumerate(zip(*(r["batches"] for r in ranks), one, strict=True)):
        assert first["rows"] == second["rows"] == (4 if place == 0 else 8)
        assert not {*first["stored"], *first["drawn"]} & {*second["stored"], *second["drawn"]}
        assert len(first["drawn"]) == len(second["drawn"]) == (place > 0)
        # what two processes sample is what one samples, with the same advantages
        for ours, theirs in zip(sorted(first["fresh"] + second["fresh"]), single["fresh"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)

    for rank, again in zip(ranks, runs["resumed"], strict=True):
        assert again["losses"] == rank["losses"] and again["batches"] == rank["batches"][2:]

    # the shards of two processes are dealt to one
    dealt = alone(policy, tmp_path / "dealt", resume=str(tmp_path / "two" / "checkpoint-2"))[0]
    before = {key for rank in ranks for key in rank["batches"][1]["stored"]}
    assert set(dealt["drawn"]) <= before and {*dealt["stored"], *dealt["drawn"]} >= before

    for rank in runs["straddling"]:
        assert "num_generations=8: a process samples 4 completions at a time" in rank["refusal"]
    if how == "ddp":
        assert "replay_1.safetensors is missing: the replay buffer cannot be restored" in printed
        assert runs["damaged"] == []
