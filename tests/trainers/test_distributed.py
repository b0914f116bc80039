"""Two processes against one with the same global batch, on CPU: DDP over gloo, ZeRO-2, ZeRO-3."""

import json
from pathlib import Path

import distributed
import pytest
import torch
from distributed import LAUNCH
from safetensors.torch import load_file
from trainers import worker

SETTINGS = {
    **distributed.SETTINGS,
    "num_iterations": 2,
    "critic_learning_rate": 2e-3,
    "max_grad_norm": 1e6,  # DeepSpeed clips policy and critic by one norm, others apart
    "score_center": "reference",
    "score_scale": "reference",
}
LORA = {"lora": True, "max_steps": 2, "save_strategy": "no"}
# A process imports for longer than it trains: those that go together are one launch.
RUNS = {
    "whole": {},
    "separate bases": {**LORA, "critic_shares_base": False},
    # a reward model is no adapter, so that a critic on the policy's base starts with a head of zeros
    "one base": {**LORA, "critic_shares_base": True, "critic_path": None},
    "value iteration": {
        **{"value_iteration": True, "num_generations": 4, "max_steps": 6, "vi_adapt": "none", "beta": 0.04},
        **{"vi_temperature": "auto", "vi_buffer": 2},
    },
}
# Both are between two samplings.
CHECKPOINTS = {"whole": "checkpoint-1", "value iteration": "checkpoint-3"}
REWARDS = {"objective/scores", "objective/kl", "objective/rlhf_reward", "loss/value_avg", "val/num_eos_tokens"}


def runs_in(folder, rows):
    """Settings of RUNS, `rows` in each process, by their folder."""
    return {str(folder / name): {**SETTINGS, "per_device_train_batch_size": rows, **RUNS[name]} for name in RUNS}


def results(runs):
    """By the names of runs: (record, weights). A record holds losses and metrics by step and the world size; weights
    are those of policy and critic, as saved."""
    found = {}
    for folder, settings in runs.items():
        adapters = {".": "adapter_model", "critic/adapter": "adapter_model"}
        parts = adapters if settings.get("lora") else {".": "model", "critic": "model"}
        saved = {part: load_file(Path(folder, "out", part, f"{name}.safetensors")) for part, name in parts.items()}
        found[Path(folder).name] = json.loads(Path(folder, "log.json").read_text()), saved
    return found


@pytest.fixture(scope="module")
def alone(policy, reward, tmp_path_factory):
    runs = runs_in(tmp_path_factory.mktemp("alone"), 8)
    worker.main(policy, reward, json.dumps(runs))
    return results(runs)


@pytest.fixture(scope="module", params=LAUNCH)
def two(request, policy, reward, tmp_path_factory):
    """How two processes were launched, and the results of RUNS and of those that go on from CHECKPOINTS."""
    folder = tmp_path_factory.mktemp(request.param)
    runs = runs_in(folder, 4)
    for name, checkpoint in CHECKPOINTS.items():
        resume = {"resume": str(folder / name / checkpoint)}
        runs[str(folder / f"{name} resumed")] = {**runs[str(folder / name)], **resume}
    done = distributed.run([worker.__file__, policy, reward, json.dumps(runs)], request.param)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, results(runs)


def largest_difference(weights, others):
    pairs = []
    for part in weights:
        extra = others[part].keys() - weights[part].keys()
        assert extra <= {"lm_head.weight"}, extra  # ZeRO-2 untangles tied weights when it saves
        pairs += [(value, others[part][name]) for name, value in weights[part].items()]
    return max((value - other).abs().max().item() for value, other in pairs)


@pytest.mark.slow
def test_two_processes_equal_one(policy, alone, two):
    how, runs = two
    for name, (one, others) in alone.items():
        record, weights = runs[name]
        assert (one["world_size"], record["world_size"]) == (1, 2)
        print(how, name, "differs from one process by", largest_difference(others, weights))
        assert largest_difference(others, weights) <= 1e-5, name
    for row, other in zip(alone["whole"][0]["log"][:-1], runs["whole"][0]["log"][:-1], strict=True):
        assert row.keys() == other.keys()
        for name in REWARDS & row.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-5), (name, row["step"])
    start = load_file(Path(policy) / "model.safetensors")
    moved = runs["whole"][1]["."]
    assert max((value - moved[name]).abs().max().item() for name, value in start.items()) > 1e-4
    for name in ("separate bases", "one base"):
        for part in (".", "critic/adapter"):
            adapters = runs[name][1][part].items()
            assert any(value.abs().max() > 0 for key, value in adapters if "lora_B" in key)  # B starts at 0


@pytest.mark.slow
def test_value_iteration_in_two_processes_logs_what_one_does(alone, two):
    how, runs = two
    rows = (run["value iteration"][0]["log"][:-1] for run in (alone, runs))
    for row, other in zip(*rows, strict=True):
        names = {name for name in row if name.startswith("vi/") or name in ("kl", "reward")}
        assert names == {name for name in other if name.startswith("vi/") or name in ("kl", "reward")}
        for name in names:
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), (how, name, row["step"])


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(two):
    _, runs = two
    for name in CHECKPOINTS:
        (record, weights), (resumed, again) = runs[name], runs[f"{name} resumed"]
        assert [row["loss"] for row in resumed["log"][:-1]] == [row["loss"] for row in record["log"][:-1]], name
        assert largest_difference(weights, again) == 0, name
        assert all(torch.isfinite(value).all() for value in again["critic"].values())
