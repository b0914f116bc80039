"""Two processes against one with the same global batch, on CPU: DDP over gloo, ZeRO-2, ZeRO-3."""

import json
from pathlib import Path

import distributed
import pytest
import torch
from distributed import LAUNCH
from safetensors.torch import load_file

SETTINGS = {
    **distributed.SETTINGS,
    "num_iterations": 2,
    "critic_learning_rate": 2e-3,
    "max_grad_norm": 1e6,  # DeepSpeed clips policy and critic by one norm, others apart
    "score_center": "reference",
    "score_scale": "reference",
}
MODELS = {".": "model", "critic": "model"}
REWARDS = {"objective/scores", "objective/kl", "objective/rlhf_reward", "loss/value_avg", "val/num_eos_tokens"}


def run(policy, reward, folder, how=None, **settings):
    """Losses and metrics by step, the world size, and the saved weights of policy and critic."""
    settings = {**SETTINGS, "per_device_train_batch_size": 4 if how else 8, **settings}
    worker = str(Path(__file__).with_name("worker.py"))
    done = distributed.run([worker, policy, reward, str(folder), json.dumps(settings)], LAUNCH.get(how))
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((Path(folder) / "log.json").read_text())
    parts = {".": "adapter_model", "critic/adapter": "adapter_model"} if settings.get("lora") else MODELS
    weights = {part: load_file(Path(folder, "out", part, f"{name}.safetensors")) for part, name in parts.items()}
    return record, weights


@pytest.fixture(scope="module")
def alone(policy, reward, tmp_path_factory):
    return run(policy, reward, tmp_path_factory.mktemp("alone"))


def largest_difference(weights, others):
    pairs = []
    for part in weights:
        extra = others[part].keys() - weights[part].keys()
        assert extra <= {"lm_head.weight"}, extra  # ZeRO-2 untangles tied weights when it saves
        pairs += [(value, others[part][name]) for name, value in weights[part].items()]
    return max((value - other).abs().max().item() for value, other in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("how", LAUNCH)
def test_two_processes_equal_one_and_resume(policy, reward, alone, tmp_path, how):
    record, weights = run(policy, reward, tmp_path / "two", how)
    assert (alone[0]["world_size"], record["world_size"]) == (1, 2)
    for row, other in zip(alone[0]["log"][:-1], record["log"][:-1], strict=True):
        assert row.keys() == other.keys()
        for name in REWARDS & row.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-5), (name, row["step"])
    print(how, "differs from one process by", largest_difference(alone[1], weights))
    assert largest_difference(alone[1], weights) <= 1e-5
    start = load_file(Path(policy) / "model.safetensors")
    assert max((value - weights["."][name]).abs().max().item() for name, value in start.items()) > 1e-4

    # checkpoint-1 stands between two samplings
    checkpoint = str(tmp_path / "two" / "checkpoint-1")
    resumed, again = run(policy, reward, tmp_path / "resumed", how, resume=checkpoint)
    assert [row["loss"] for row in resumed["log"][:-1]] == [row["loss"] for row in record["log"][:-1]]
    assert largest_difference(weights, again) == 0
    assert all(torch.isfinite(value).all() for value in again["critic"].values())


@pytest.mark.slow
@pytest.mark.parametrize("shares", [False, True], ids=["separate bases", "one base"])
@pytest.mark.parametrize("how", LAUNCH)
def test_adapters_in_two_processes_equal_those_in_one(policy, reward, tmp_path, how, shares):
    # a reward model is no adapter, so that a critic on the policy's base starts with a head of zeros
    settings = {"lora": True, "critic_shares_base": shares, "max_steps": 2, "save_strategy": "no"}
    settings |= {"critic_path": None} if shares else {}
    alone, weights = run(policy, reward, tmp_path / "one", **settings)
    record, others = run(policy, reward, tmp_path / "two", how, **settings)
    assert (alone["world_size"], record["world_size"]) == (1, 2)
    print(how, "differs from one process by", largest_difference(weights, others))
    assert largest_difference(weights, others) <= 1e-5
    assert any(value.abs().max() > 0 for name, value in weights["."].items() if "lora_B" in name)  # B starts at 0
    assert any(value.abs().max() > 0 for name, value in weights["critic/adapter"].items() if "lora_B" in name)


@pytest.mark.slow
def test_value_iteration_in_two_processes_equals_one_and_resumes(policy, reward, tmp_path):
    settings = {"value_iteration": True, "num_generations": 4, "max_steps": 6, "vi_adapt": "none", "beta": 0.04}
    settings |= {"vi_temperature": "auto", "vi_target_tau": 0.5, "vi_buffer": 2}
    alone = run(policy, reward, tmp_path / "alone", **settings)
    for how in ("ddp", "zero3"):
        record, weights = run(policy, reward, tmp_path / how, how, **settings)
        assert record["world_size"] == 2
        for row, other in zip(alone[0]["log"][:-1], record["log"][:-1], strict=True):
            names = {name for name in row if name.startswith("vi/") or name in ("kl", "reward")}
            assert names == {name for name in other if name.startswith("vi/") or name in ("kl", "reward")}
            for name in names:
                assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), (how, name, row["step"])
        print(how, "differs from one process by", largest_difference(alone[1], weights))
        assert largest_difference(alone[1], weights) <= 1e-5
        checkpoint = str(tmp_path / how / "checkpoint-3")  # between two samplings
        resumed, again = run(policy, reward, tmp_path / f"{how}-resumed", how, resume=checkpoint, **settings)
        assert [row["loss"] for row in resumed["log"][:-1]] == [row["loss"] for row in record["log"][:-1]]
        assert largest_difference(weights, again) == 0
