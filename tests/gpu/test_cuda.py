"""What only a CUDA device can show: `make gpu`. Models are random and built here; nothing is downloaded."""

import math

import pytest
import torch
from safetensors.torch import load_file

from evaluation.proofs.gpu.planner import on_device
from evaluation.proofs.memory.check import MODELS, RUNS, compose_run, trainer_of
from evaluation.proofs.memory.shapes import build_shape
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.memory.plan import plan
from rlhf_trl_ext.stages.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is found"),
]
ALGORITHMS = ("sft", "reward", "dpo", "grpo", "grpo_offpolicy", "grpo_vi", "ppo")
LORA = ["++model.use_peft=true", "++model.lora_target_modules=[all-linear]"]
ON_CUDA = ("++args.use_cpu=false", "++args.bf16=true", "++model.dtype=bfloat16")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A policy and a reward model in bfloat16, 5 M parameters."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {"hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "intermediate": 768, "layers": 4}
    build_shape(folder / "policy", dtype="bfloat16", vocabulary=4096, **sizes)
    build_shape(folder / "reward", dtype="bfloat16", vocabulary=4096, labels=1, **sizes)
    return folder


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parameters_move_in_bfloat16(algorithm, lora, models, composed, few, tmp_path):
    overrides = [f"algorithm={algorithm}", f"++model.model_name_or_path={models / 'policy'}", *few, *ON_CUDA]
    overrides += [f"reward.path={models / 'reward'}", f"output_dir={tmp_path / 'run'}", "evaluate=false"]
    if "max_completion_length" in composed("train", f"algorithm={algorithm}").args:
        overrides.append("++args.max_completion_length=32")
    record = train(composed("train", *overrides, *(LORA if lora else [])))
    assert record["steps"] == 4
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert losses and all(map(math.isfinite, losses))
    before, after = (load_file(folder / "model.safetensors") for folder in (models / "policy", tmp_path / "run"))
    moved = [name for name in before if name in after and not torch.equal(before[name].float(), after[name].float())]
    assert len(moved) > len(before) / 2


@pytest.mark.parametrize("index", [0, 3, 8, 11, 13, 14])
def test_the_planner_against_cudas_allocator(index, tmp_path):
    model, algorithm, rows, prompt, length, further = RUNS[index]
    hopper = torch.cuda.get_device_capability()[0] >= 9
    run = (model, algorithm, rows, prompt, length, (*further, *on_device(True, hopper)))
    build_shape(tmp_path / model, **MODELS[model])
    build_shape(tmp_path / f"{model}-reward", labels=1, **MODELS[model])
    found, _, _ = plan(compose_run(tmp_path, run))
    trainer = trainer_of(tmp_path, run)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    assert found.peak == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)
