import math

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_trl_ext.functional.value_statistics import Reliability
from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer
from rlhf_trl_ext.trainers.grpo_vi import GRPOVIConfig, GRPOVITrainer

METRICS = ["explained_variance", "explained_variance_first_third", "explained_variance_last_third", "value_mean"]
METRICS += ["bellman_residual", "linex_clip_frac", "value_root_minus_group_mean", "signal_zero_std_groups", "adv_rms"]
METRICS += ["correlation_with_grpo", "temperature", "trust", "noise", "mixture", "lambda", "loss"]
ALWAYS = {"vi_adapt": "none", "vi_temperature": 0.5}  # value iteration counts from the first batch


def score(completion_ids, **kwargs):
    """Differs between completions and between their tokens."""
    return [sum(token % 7 == 0 for token in ids) / len(ids) + (ids[0] % 2) for ids in completion_ids]


@pytest.fixture
def vi(make_trainer, policy, tmp_path):
    """`vi(folder=..., **settings)`: a GRPOVITrainer, not yet trained."""

    def make(folder=tmp_path, reward_funcs=score, trainer_arguments=None, **settings):
        settings = {"num_generations": 4, "critic_learning_rate": 1e-2, **settings}
        return make_trainer(GRPOVITrainer, GRPOVIConfig, policy, folder, reward_funcs, trainer_arguments, **settings)

    return make


def test_without_mixture_or_sweeps_it_is_grpo_bit_for_bit(vi, make_trainer, policy, tmp_path, weights, logged):
    plain = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path, score, num_generations=4, max_steps=8)
    plain.train()
    for settings in ({"vi_coef": 0.0}, {"vi_sweeps": 0}):
        trainer = vi(max_steps=8, **settings)
        trainer.train()
        assert logged(trainer) == logged(plain)
        assert all(torch.equal(value, weights(plain.model)[name]) for name, value in weights(trainer.model).items())
    other = vi(max_steps=8, **ALWAYS)
    other.train()
    assert not torch.equal(other.model.lm_head.weight, plain.model.lm_head.weight)


def test_a_critic_that_knows_nothing_yet_leaves_grpo_as_it_is(vi, logged):
    trainer = vi(max_steps=1)
    trainer.train()
    row = logged(trainer)[0]
    assert row["vi/trust"] == row["vi/mixture"] == 0 and row["vi/lambda"] == 1 and math.isinf(row["vi/temperature"])


def test_a_critic_that_knows_nothing_is_given_up(vi, weights, logged, monkeypatch, caplog):
    monkeypatch.setattr(Reliability, "trust", 0.0)
    steps = {"num_iterations": 1, "max_steps": 8}  # two a batch
    trainer, seen = vi(**steps, vi_give_up=2), []
    swept = trainer.fitting.sweep
    trainer.fitting.sweep = lambda *args: seen.append(weights(trainer.model)) or swept(*args)
    trainer.train()
    assert len(seen) == 2 and ["vi/trust" in row for row in logged(trainer)[:8:2]] == [True, True, False, False]
    assert sum("vi_give_up=2" in message for message in caplog.messages) == 1
    name = "model.embed_tokens.weight"
    assert not torch.equal(weights(trainer.model)[name], seen[-1][name])  # GRPO goes on
    for settings in ({"vi_give_up": None}, {"vi_adapt": "none"}, {"vi_adapt": "lambda"}):
        other = vi(num_iterations=1, **{"vi_give_up": 2, **settings})
        other.reliability.doubts, other.vi_batches = 5, 5
        assert not other.has_given_up


@pytest.mark.parametrize(
    "settings",
    [{}, {"vi_value_model": "head"}],
    ids=["model", "head"],
)
def test_policy_and_critic_learn_and_metrics_are_finite(vi, weights, logged, settings):
    trainer = vi(max_steps=8, **{**ALWAYS, **settings})  # two batches: the first moves the head of zeros only
    before, values_before = weights(trainer.model), weights(trainer.prefix_values)
    trainer.train()
    for module, start in ((trainer.model, before), (trainer.prefix_values, values_before)):
        still = [name for name, value in weights(module).items() if torch.equal(value, start[name])]
        assert not still, still
    assert not any(name.startswith("critic") for name in before)
    first = logged(trainer)[0]
    assert all(math.isfinite(first[f"vi/{name}"]) for name in METRICS)
    assert first["vi/mixture"] == 1 and first["vi/lambda"] == pytest.approx(0.8)


def test_while_the_critic_is_pretrained_the_policy_stays(vi, weights, logged):
    trainer = vi(**ALWAYS, vi_pretrain=2, num_iterations=1, max_steps=4)  # two batches of two steps
    before, values_before = weights(trainer.model), weights(trainer.prefix_values)
    trainer.train()
    assert logged(trainer)[0]["vi/mixture"] == 0
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer.model).items())
    assert any(not torch.equal(value, values_before[name]) for name, value in weights(trainer.prefix_values).items())


def test_groups_of_equal_rewards_teach_only_through_value_iteration(vi, logged):
    def grows(completion_ids, trainer_state, **kwargs):
        """All equal in a batch, where GRPO has nothing to learn from; the batches differ."""
        return [1.0 + trainer_state.global_step for _ in completion_ids]

    for settings, share in (({"vi_coef": 0.0}, None), ({**ALWAYS, "vi_equal_groups": 0.0}, None), (ALWAYS, 1.0)):
        trainer = vi(reward_funcs=grows, num_iterations=1, **settings)
        trainer.train()
        rows = logged(trainer)[:-1]
        assert all((row["grad_norm"] > 0) == (share is not None) for row in rows)
        assert rows[2].get("vi/signal_zero_std_groups") == pytest.approx(share, abs=0.5) if share else True


def test_advantages_are_the_mixture(vi):
    trainer = vi(**ALWAYS, vi_coef=0.25, vi_lambda=1.0)
    trainer.model.train()
    seen = {}
    mixed = trainer._mix

    def spy(batch, *args):
        seen.update(grpo=batch["advantages"].clone())
        mixed(batch, *args)

    trainer._mix = spy
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4 + [trainer.train_dataset[1]] * 4)
    # The critic is 0 everywhere at first, so that with lambda = 1 every token's A^VI is its row's reward.
    mask, rewards = batch["completion_mask"], batch["rewards"]
    rms = ((rewards[:, None] ** 2 * mask).sum() / mask.sum()).sqrt()
    expected = (0.75 * seen["grpo"] + 0.25 * rewards / (rms + 1e-4))[:, None] * mask
    torch.testing.assert_close(batch["advantages"], expected)


def test_a_head_reads_the_states_that_generation_went_through(vi):
    trainer = vi(vi_value_model="head")
    trainer.model.train()
    found, read = [], trainer._states
    trainer._states = lambda *args: found.append((*args, read(*args))) or found[-1][2]
    trainer.prefix_values.states, anew = None, trainer.prefix_values.states  # not computed a second time
    trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4 + [trainer.train_dataset[1]] * 4)
    trainer.prefix_values.states = anew
    ((batch, generated, states),) = found
    with torch.no_grad():
        expected = anew(batch)
    kept = batch["completion_mask"].bool()
    torch.testing.assert_close(states[kept], expected[kept], rtol=0, atol=1e-5)
    torch.testing.assert_close(read(batch, generated[:-1]), expected)  # of other rows: computed


def test_values_are_those_before_the_critic_saw_the_rewards(vi):
    trainer = vi(**ALWAYS)
    trainer.model.train()
    batch = [trainer.train_dataset[0]] * 8
    for _ in range(3):
        trainer._generate_and_score_completions(batch)
    before = {name: value.clone() for name, value in trainer.prefix_values.state_dict().items()}
    swept, found = trainer.fitting.sweep, {}

    def spy(read, *args):
        with torch.no_grad():
            found["values"] = trainer.values(read)
        result = swept(read, *args)
        found["swept"] = result[0]
        return result

    trainer.fitting.sweep = spy
    trainer._generate_and_score_completions(batch)
    torch.testing.assert_close(found["values"], found["swept"], rtol=0, atol=1e-6)
    assert any(not torch.equal(value, before[name]) for name, value in trainer.prefix_values.state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"vi_value_model": "head", "vi_sweep_batches": 2}, marks=pytest.mark.slow),
        pytest.param({"replay_ratio": 1.0}, marks=pytest.mark.slow),
    ],
    ids=["model", "head", "replay"],
)
def test_resume_equals_the_uninterrupted_run_bit_for_bit(vi, tmp_path, settings, weights, logged):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 12, "vi_buffer": 2, **settings}
    settings |= {"per_device_train_batch_size": 8, "vi_adapt": "both"}
    whole = vi(tmp_path / "whole", **settings)
    whole.train()
    resumed = vi(tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))  # within the second batch
    assert logged(resumed, "train_loss") == logged(whole, "train_loss")
    for name in ("model", "prefix_values"):
        expected = weights(getattr(whole, name))
        assert all(torch.equal(value, expected[key]) for key, value in weights(getattr(resumed, name)).items()), name
    assert resumed.reliability.state().keys() == whole.reliability.state().keys()
    # Controls: without its value buffer, or with the critic's first weights, it would be another run.
    (tmp_path / "whole" / "checkpoint-6" / "value_fitting.pt").unlink()
    with pytest.raises(ValueError, match="has no value_fitting"):
        vi(tmp_path / "other", **settings).train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))


def test_saved_policy_has_no_critic_and_the_saved_critic_starts_a_run(vi, tmp_path, weights):
    trainer = vi(**ALWAYS)
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    critic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "critic")
    assert all(torch.equal(value, weights(trainer.critic)[name]) for name, value in weights(critic).items())
    again = weights(vi(critic_path=str(tmp_path / "out" / "critic")).prefix_values)
    assert all(torch.equal(value, again[name]) for name, value in weights(trainer.prefix_values).items())


def test_adapters_on_the_policys_base(vi, weights):
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = vi(critic_shares_base=True, trainer_arguments={"peft_config": lora}, max_steps=8, **ALWAYS)
    before = weights(trainer.critic)
    trainer.train()
    for name, value in weights(trainer.critic).items():
        assert ("lora_" in name or "modules_to_save" in name) != torch.equal(value, before[name]), name


def test_unscorable_rows_and_replayed_rows_do_no_harm(vi, weights, logged):
    def sometimes(completions, **kwargs):
        return [None if i == 1 else float(i) for i in range(len(completions))]

    settings = {"replay_ratio": 1.0, "per_device_train_batch_size": 8, "num_iterations": 1, "min_buffer": 1, **ALWAYS}
    trainer = vi(reward_funcs=sometimes, vi_lambda="auto", **settings)
    trainer.train()
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in logged(trainer)[:-1])
    assert all(value.isfinite().all() for value in weights(trainer.prefix_values).values())
    replayed = [row for row in logged(trainer) if row.get("replay/n_groups")]
    assert replayed and len(trainer.fitting.buffer[-1]["rewards"]) == 16  # fresh rows only
    before = weights(trainer.prefix_values)
    trainer.evaluate(trainer.train_dataset.select(range(4)))
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer.prefix_values).items())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"vi_temperature": 0.0}, "vi_temperature=0.0: above 0 or auto is needed"),
        ({"vi_temperature": "warm"}, "vi_temperature=warm"),
        ({"vi_lambda": 1.5}, "vi_lambda=1.5: 0 to 1 or auto is needed"),
        ({"vi_coef": 2.0}, "vi_coef=2.0: 0 to 1"),
        ({"vi_adapt": "all"}, "vi_adapt=all: allowed are none, mixture, lambda, both"),
        ({"vi_sweeps": -1}, "vi_sweeps=-1: at least 0"),
        ({"vi_equal_groups": 2.0}, "vi_equal_groups=2.0: 0 to 1"),
        ({"vi_value_model": "head", "critic_path": "x"}, "vi_value_model=head loads no model"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        GRPOVIConfig(use_cpu=True, bf16=False, report_to="none", **settings)


def test_critics_gradient_is_clipped_as_the_policys_unless_given():
    common = {"use_cpu": True, "bf16": False, "report_to": "none", "max_grad_norm": 0.3}
    assert GRPOVIConfig(**common).critic_max_grad_norm == 0.3
    assert GRPOVIConfig(**common, critic_max_grad_norm=0).critic_max_grad_norm == 0
