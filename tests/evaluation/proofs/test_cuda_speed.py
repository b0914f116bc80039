import pytest

from evaluation.proofs.memory.shapes import build_shape
from evaluation.proofs.speed.cuda import TINY, compare, configuration
from evaluation.proofs.speed.overhead import BARE
from rlhf_trl_ext.configuration.checks import build


@pytest.mark.parametrize("algorithm", list(BARE))
def test_on_a_gpu_the_arguments_are_bfloat16(algorithm, tmp_path):
    config = configuration(algorithm, True, tmp_path, steps=3, rows=8, on_cpu=False)
    assert config.args.bf16 and config.args.gradient_checkpointing and not config.args.use_cpu
    assert config.args.max_steps == 3 and config.args.per_device_train_batch_size == 8
    model = build(config.model, "model")
    assert model.dtype == "bfloat16" and model.trainer_arguments()["peft_config"].r == 16


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "lora"), [("dpo", True), ("grpo", False), ("sft", True), ("reward", False)])
def test_both_ways_train_alike(algorithm, lora, tmp_path):
    build_shape(tmp_path / "model", **TINY)
    found = compare(configuration(algorithm, lora, tmp_path / "model", 2, 8, on_cpu=True), 1, tmp_path)
    assert found["difference"] == 0 and len(found["ratios"]) == 1
