import pytest
import trl
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError, build, check, choices

GRPO = {"_target_": "trl.GRPOConfig", "use_cpu": True, "bf16": False}


def refused(**keys) -> str:
    with pytest.raises(ConfigError) as caught:
        build(OmegaConf.create({**GRPO, **keys}), "args")
    told = str(caught.value)
    assert "\n" not in told
    return told


def test_a_wrong_type_names_key_value_and_type():
    assert refused(learning_rate="abc").startswith("args.learning_rate=abc: float is needed")
    assert refused(max_steps=1.5).startswith("args.max_steps=1.5: int is needed")


def test_a_number_in_quotes_is_refused_because_trl_would_keep_the_string():
    assert "args.learning_rate=1e-5: float is needed" in refused(learning_rate="1e-5")


def test_a_wrong_choice_lists_the_allowed_ones():
    assert refused(loss_type="nope") == (
        "args.loss_type=nope: allowed are grpo, dr_grpo, dapo, bnpo, cispo, sapo, luspo, vespo."
    )
    assert "group, batch" in refused(scale_rewards="nope")
    assert refused(lr_scheduler_type="nope").startswith("args.lr_scheduler_type=nope: ")


def test_a_mistyped_key_gets_the_close_ones():
    assert "did you mean learning_rate" in refused(lerning_rate=1e-5)


def test_a_refusal_of_trl_becomes_one_sentence():
    told = refused(num_generations=3, per_device_train_batch_size=8)
    assert told == "args.num_generations=3: generation_batch_size (8) must be divisible by num_generations (3)."


def test_a_refusal_begins_with_the_key_that_it_is_about():
    assert refused(save_steps=1.5).startswith("args.save_steps=1.5: --save_steps must be an integer")
    embedded = OmegaConf.create({"_target_": "rlhf_trl_ext.data.embedded.Embedded", "prompts": 0})
    with pytest.raises(ConfigError, match=r"^dataset\.prompts=0 of dataset=embedded is not allowed"):
        build(embedded, "dataset")


def test_a_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"^model\.path has no value: give model\.path=<value>\.$"):
        check(OmegaConf.create({"path": "???"}), "model")


def test_nested_targets_are_checked():
    nested = {"_target_": "builtins.dict", "inner": {**GRPO, "beta": "x"}}
    with pytest.raises(ConfigError, match=r"^node\.inner\.beta=x"):
        check(OmegaConf.create(nested), "node")


def test_valid_values_pass_and_reach_trl():
    args = build(OmegaConf.create({**GRPO, "loss_type": "bnpo", "scale_rewards": False, "num_generations": 4}), "args")
    assert (args.loss_type, args.scale_rewards, args.num_generations) == ("bnpo", "none", 4)


@pytest.mark.parametrize("name", ["SFTConfig", "RewardConfig", "DPOConfig", "GRPOConfig", "RLOOConfig", "KTOConfig"])
def test_no_default_of_trl_is_refused(name):
    # A set of choices read from help or docstring that lacks TRL's own default was read wrongly.
    fields = getattr(trl, name).__dataclass_fields__
    for key, field in fields.items():
        allowed = choices(getattr(trl, name), key)
        if allowed and isinstance(field.default, str):
            assert field.default in allowed, (key, allowed)


def test_losses_are_known_as_long_as_trl_states_them():
    # loss_type has no type of its own in TRL: if its help text changes, this says that the check is gone.
    assert "sigmoid" in choices(trl.DPOConfig, "loss_type")
    assert "dapo" in choices(trl.GRPOConfig, "loss_type")
    assert "kto" in choices(trl.KTOConfig, "loss_type")
