"""A preset is a promise: it trains, at rates that fit whole models or adapters, with weights that can move."""

import pytest
import torch
from configuration.test_configs import names

from rlhf_trl_ext.configuration.checks import build

RATES = {"sft": (2e-5, 2e-4), "reward": (1e-5, 1e-4), "dpo": (1e-6, 1e-5), "grpo": (1e-6, 1e-5), "ppo": (3e-6, 3e-5)}


@pytest.mark.parametrize("algorithm", RATES)
def test_rates_of_whole_models_and_of_adapters(algorithm, composed):
    whole, adapters = (
        build(composed("train", f"algorithm={algorithm}", f"++model.use_peft={lora}").args, "args", output_dir="unused")
        for lora in ("false", "true")
    )
    assert (whole.learning_rate, adapters.learning_rate) == RATES[algorithm]


def test_whole_models_are_trained_in_float32_and_adapters_beside_bfloat16(composed):
    for model in set(names("model")) - {"tiny", "stories260k"}:
        given = composed("train", f"model={model}").model
        assert given.dtype == ("bfloat16" if given.get("use_peft") else "float32"), model


@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.5), ("bfloat16", None)])
def test_float32_weights_move_where_bfloat16_ones_stand_still(dtype, share):
    """60 steps of AdamW at the rate of the presets, 1e-6: half a bfloat16 step of a weight of .02 is 6e-5."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter((0.02 * torch.randn(1000)).to(getattr(torch, dtype)))
    before, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], lr=1e-6, weight_decay=0)
    for _ in range(60):
        weight.grad = torch.randn(1000).to(weight.dtype)
        optimizer.step()
    moved = (weight != before).float().mean().item()
    assert moved > share if share else moved < 0.1
