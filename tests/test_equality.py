"""Every algorithm in two processes on CPU, under DDP and each DeepSpeed configuration, against one process."""

import json

import every_algorithm
import pytest
import torch
from distributed import run
from safetensors.torch import load_file

from rlhf_trl_ext.stages.checkpoints import MARK, damage

ALGORITHMS = ("sft", "reward", "dpo", "dpo_lora", "ppo", "grpo", "grpo_offpolicy", "grpo_vi")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    every_algorithm.main(str(folder), "none", *ALGORITHMS)
    return folder


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [float(row["loss"]) for row in rows if "loss" in row]


def weights(folder):
    files = [path for path in folder.rglob("*.safetensors") if "checkpoint-3" not in path.parts]
    return {f"{path.relative_to(folder)}:{k}": v for path in files for k, v in load_file(path).items()}


# ZeRO-1 is ZeRO-2's code less one branch, offload is ZeRO-3's with the optimizer elsewhere: a few algorithms show it.
CASES = {"none": ALGORITHMS, "zero1": ("dpo", "ppo"), "zero2": ALGORITHMS, "zero3": ALGORITHMS}
CASES["zero3_offload"] = ("sft", "grpo_vi")


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", CASES)
def test_two_processes_equal_one(deepspeed, alone, tmp_path):
    done = run([every_algorithm.__file__, str(tmp_path), deepspeed, *CASES[deepspeed]])
    assert done.returncode == 0, done.stderr[-4000:]
    for algorithm in CASES[deepspeed]:
        one, two = alone / algorithm, tmp_path / algorithm
        worlds = [json.loads((folder / "stage.json").read_text())["world_size"] for folder in (one, two)]
        assert worlds == [1, 2]
        saved = json.loads((two / "checkpoint-3" / MARK).read_text())  # waits for both processes
        assert not damage(two / "checkpoint-3") and {"rng_state_1.pth", "resume_1.pt"} <= saved.keys()
        difference = max(abs(ours - theirs) for ours, theirs in zip(losses(one), losses(two), strict=True))
        before, ours, theirs = weights(next(alone.glob("models/*"))), weights(one), weights(two)
        # DeepSpeed untangles tied weights when it saves
        assert theirs.keys() - ours.keys() <= {"model.safetensors:lm_head.weight"} and ours.keys() <= theirs.keys()
        apart = max((theirs[name] - value).abs().max().item() for name, value in ours.items())
        moved = max((ours[name] - value).abs().max().item() for name, value in before.items() if name in ours)
        print(f"{deepspeed} {algorithm}: losses {difference:.1e} and weights {apart:.1e} apart, moved by {moved:.1e}")
        assert difference <= 1e-5 and apart <= 1e-5 and moved > 1e-4 and len(losses(one)) == 3
        assert all(torch.isfinite(value).all() for value in theirs.values())
