import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_trl_ext.rewards.ensemble import RewardEnsemble

TRL_NAMES = [
    "objective/kl",
    "objective/entropy",
    "objective/non_score_reward",
    "objective/rlhf_reward",
    "objective/scores",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "policy/entropy_avg",
    "loss/policy_avg",
    "loss/value_avg",
    "val/clipfrac_avg",
    "val/ratio",
    "val/ratio_var",
    "val/num_eos_tokens",
    "lr",
    "episode",
]


def test_policy_and_critic_learn_and_trl_metrics_are_finite(ppo, weights, logged):
    trainer = ppo(critic_learning_rate=1e-2)
    before = weights(trainer.model)
    trainer.train()
    moved = {name: not torch.equal(value, before[name]) for name, value in weights(trainer.model).items()}
    assert all(moved.values()), [name for name in moved if not moved[name]]
    rows = logged(trainer)[:-1]
    for name in [*TRL_NAMES, "val/explained_variance", "objective/kl_coef"]:
        found = [row[name] for row in rows if name in row]
        assert len(found) == (1 if name.startswith("objective") or name.endswith("tokens") else 4), name
        assert all(map(math.isfinite, found)), name
    rates = {group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert len(rates) == 2 and max(rates) == pytest.approx(10 * min(rates))


def test_ratio_is_one_in_the_first_step_and_the_kl_is_zero(ppo, logged):
    trainer = ppo(max_steps=1)
    trainer.train()
    row = logged(trainer)[0]
    assert abs(row["val/ratio"] - 1) < 1e-6 and row["policy/approxkl_avg"] < 1e-12 and row["policy/clipfrac_avg"] == 0
    assert abs(row["objective/kl"]) < 1e-6


def test_saved_policy_has_no_critic_and_the_saved_critic_loads(ppo, tmp_path, weights):
    trainer = ppo()
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    policy, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    trained = weights(trainer.model)
    assert all(torch.equal(value, trained[name]) for name, value in weights(policy).items())
    critic, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out" / "critic", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(value, trained[f"critic.{name}"]) for name, value in weights(critic).items())
    assert critic.config.num_labels == 1
    again = weights(ppo(critic_path=str(tmp_path / "out" / "critic")).critic)
    assert all(torch.equal(value, again[name]) for name, value in weights(critic).items())


def test_vllm_is_sent_the_policy_alone(ppo):
    trainer = ppo()
    sent = trainer._alone(lambda: [name for name, _ in trainer.model.named_parameters()])()
    assert sent and not any(name.startswith("critic.") for name in sent)
    assert any(name.startswith("critic.") for name, _ in trainer.model.named_parameters())


def test_critic_starts_from_the_reward_model_or_from_the_policy_with_a_head_of_zeros(ppo, reward, policy, weights):
    scores = AutoModelForSequenceClassification.from_pretrained(reward)
    assert all(torch.equal(value, weights(scores)[name]) for name, value in weights(ppo().critic).items())
    critic = weights(ppo(critic_path=None).critic)
    backbone = weights(AutoModelForCausalLM.from_pretrained(policy))
    assert not critic.pop("score.weight").any()
    assert all(torch.equal(value, backbone[name]) for name, value in critic.items())


@pytest.mark.parametrize(
    ("step", "logging_steps"), [(2, 1), (1, 1), (3, 2)], ids=["within an epoch", "within the first pass", "unlogged"]
)
def test_resume_equals_the_uninterrupted_run_bit_for_bit(ppo, tmp_path, step, logging_steps, weights, logged):
    # A batch is sampled every 2 * 2 = 4 steps, so each of these checkpoints stands between two samplings.
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, "logging_steps": logging_steps}
    settings |= {"kl_target": 1e-3, "kl_horizon": 50, "score_center": "reference", "score_scale": "reference"}
    whole = ppo(tmp_path / "whole", **settings)
    whole.train()
    resumed = ppo(tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert logged(resumed, "train_loss") == logged(whole, "train_loss")
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())
    assert resumed.beta == whole.beta != 0.05 and resumed.score_center == whole.score_center


def test_in_value_warm_up_only_the_critic_learns(ppo, weights):
    trainer = ppo(value_warmup_steps=2, max_steps=2)
    before = weights(trainer.model)
    trainer.train()
    for name, value in weights(trainer.model).items():
        assert torch.equal(value, before[name]) != name.startswith("critic."), name


def test_scores_are_standardised_on_samples_of_the_reference(ppo):
    trainer = ppo(score_center="reference", score_scale="reference", max_steps=1)
    seen = []
    calculate = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *a: (seen.append(calculate(*a)), seen[-1])[1]
    trainer.train()
    measured = torch.cat(seen[:4])[:, 0]
    assert len(seen) == 5 and len(measured) == 4 * 8
    assert trainer.score_center == pytest.approx(measured.mean().item(), rel=1e-5)
    assert trainer.score_scale == pytest.approx(measured.std().item(), rel=1e-5)


def test_equal_rewards_of_the_reference_are_not_magnified(ppo, caplog):
    trainer = ppo(
        reward_funcs=lambda completions, **kwargs: [0.5] * len(completions), score_scale="reference", max_steps=1
    )
    trainer.train()
    assert trainer.score_scale == 1.0 and "all rewards of the reference are equal" in caplog.text


def test_a_critic_that_was_a_reward_model_is_read_on_the_scale_of_the_scores(ppo):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 200, (2, 6), generator=generator)
    batch = {"prompt_ids": ids[:, :4], "completion_ids": ids[:, 4:]}
    batch |= {"prompt_mask": torch.ones(2, 4).long(), "completion_mask": torch.ones(2, 2).long()}
    raw, scaled = ppo(), ppo(score_center=3.0, score_scale=2.0)
    torch.testing.assert_close(scaled.values(batch), (raw.values(batch) - 3) / 2)
    fresh = ppo(critic_path=None, score_center=3.0, score_scale=2.0)
    assert not fresh.values(batch).any()  # a critic of its own starts at the mean of the scores, 0


def test_a_saved_critic_of_scores_goes_on_in_scores_and_not_in_rewards(ppo, tmp_path):
    """Of a critic that says 1.73 with center 3 and scale 2, an earlier version made (1.73 - 3) / 2 = -.63."""
    batch = {name: torch.full((1, 2), 20) for name in ("prompt_ids", "completion_ids")}
    batch |= {name: torch.ones(1, 2).long() for name in ("prompt_mask", "completion_mask")}
    trained = ppo(critic_path=None, score_center=3.0, score_scale=2.0)
    trained.critic.score.weight.data += 0.1
    trained.critic.score.weight.data *= 1.73 / trained.values(batch)[0, -1].item()
    trained.save_model(str(tmp_path / "out"))
    critic = str(tmp_path / "out" / "critic")
    again = ppo(tmp_path / "again", critic_path=critic, score_center=3.0, score_scale=2.0)
    assert again.values(batch)[0, -1].item() == pytest.approx(1.73, abs=1e-5)
    other = ppo(tmp_path / "other", critic_path=critic, score_center=1.0, score_scale=1.0)
    assert other.values(batch)[0, -1].item() == pytest.approx(1.73 * 2 + 3 - 1, abs=1e-5)
    again.save_model(str(tmp_path / "third"))
    third = ppo(critic_path=str(tmp_path / "third" / "critic"), score_center=3.0, score_scale=2.0)
    assert torch.equal(third.values(batch), again.values(batch))
    raw = ppo(tmp_path / "raw", score_center=3.0, score_scale=2.0)  # a reward model speaks in rewards
    raw.save_model(str(tmp_path / "raw-out"))
    assert not (tmp_path / "raw-out" / "critic" / "scores.json").exists()


def test_policy_and_critic_are_clipped_apart(ppo):
    """By one norm, a critic's gradient of 10 would shrink the policy's of .05 to .1 / 10 of it."""
    trainer = ppo(max_grad_norm=0.1)
    critic = {id(parameter) for parameter in trainer.critic.parameters()}
    parts = {True: [], False: []}
    for parameter in trainer.model.parameters():
        parts[id(parameter) in critic].append(parameter)
    for own, norm in ((False, 0.05), (True, 10.0)):
        size = sum(parameter.numel() for parameter in parts[own])
        for parameter in parts[own]:
            parameter.grad = torch.full_like(parameter, norm / size**0.5)
    trainer._clip_grad_norm(trainer.model)
    norms = {own: torch.cat([p.grad.flatten() for p in parts[own]]).norm().item() for own in parts}
    assert norms[False] == pytest.approx(0.05, rel=1e-4) and norms[True] == pytest.approx(0.1, rel=1e-4)


def test_evaluation_reports_the_same_metrics_and_changes_nothing(ppo, weights):
    trainer = ppo(kl_target=1.0, per_device_eval_batch_size=4)
    trainer.train()
    before, beta = weights(trainer.model), trainer.beta
    metrics = trainer.evaluate(trainer.train_dataset.select(range(4)))
    assert math.isfinite(metrics["eval_loss"]) and trainer.beta == beta
    found = trainer.state.log_history[-1]
    assert all(math.isfinite(found[f"eval_{name}"]) for name in ("objective/scores", "objective/kl", "loss/value_avg"))
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer.model).items())


def test_unscorable_and_empty_rows_do_no_harm(ppo, weights, logged):
    def sometimes(completions, **kwargs):
        return [None if i % 3 == 0 else float(i) for i in range(len(completions))]

    trainer = ppo(reward_funcs=sometimes, mask_truncated_completions=True)
    trainer.train()
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in logged(trainer)[:-1])
    assert all(value.isfinite().all() for value in weights(trainer.model).values())

    nothing = ppo(reward_funcs=lambda completions, **kwargs: [None] * len(completions), kl_coef=0.0, max_steps=1)
    before = weights(nothing.model)
    nothing.train()
    assert all(torch.equal(value, before[name]) for name, value in weights(nothing.model).items())


def test_tokens_of_a_tool_are_skipped(ppo):
    """The third and fourth token come from outside: no advantage, no return, no part in the divergence."""
    completions = [[20, 21, 22, 23, 24, 25]] * 8

    def roll_out(prompts, trainer):
        masks = [[1, 1, 0, 0, 1, 1]] * len(prompts)
        ids = completions[: len(prompts)]
        nothing = [[0.0] * 6] * len(prompts)
        return {"prompt_ids": [[9, 8]] * len(prompts), "completion_ids": ids, "logprobs": nothing, "env_mask": masks}

    trainer = ppo(
        reward_funcs=lambda completions, **kwargs: [float(i) for i in range(len(completions))],
        trainer_arguments={"rollout_func": roll_out},
        max_steps=1,
    )
    trainer.ref_model.lm_head.weight.data.mul_(1.5)
    batch = trainer._generate_and_score_completions([{"prompt": "?"}] * 8)
    outside = torch.tensor([0, 0, 1, 1, 0, 0]).bool()
    for name in ("advantages", "returns", "values", "value_mask"):
        assert not batch[name][:, outside].any() and batch[name][:, ~outside].any(), name
    # No row has an end token, so the return of the last one is reward - 1 - kl_coef * kl.
    kl = (batch["old_per_token_logps"] - reference(trainer, batch))[:, -1]
    expected = torch.arange(8.0) - 1 - 0.05 * kl
    torch.testing.assert_close(batch["returns"][:, -1], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def reference(trainer, batch):
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.ones_like(ids)
    return trainer._get_per_token_logps_and_entropies(trainer.ref_model, ids, mask, batch["completion_ids"].shape[1])[0]


def test_several_reward_functions_with_weights(ppo, reward, logged):
    def one(completions, **kwargs):
        return [1.0] * len(completions)

    trainer = ppo(reward_funcs=[one, one], reward_weights=[2.0, 0.5], missing_eos_penalty=0.25, max_steps=1)
    trainer.train()
    row = logged(trainer)[0]
    truncated = row["completions/clipped_ratio"]
    assert row["objective/scores"] == pytest.approx(2.5 - 0.25 * truncated) and truncated > 0


def test_left_padding_changes_neither_values_nor_their_gradients(ppo):
    trainer = ppo()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 200, (3, 9), generator=generator)
    batch = {"prompt_ids": ids[:, :5], "completion_ids": ids[:, 5:]}
    batch |= {"prompt_mask": torch.ones(3, 5).long(), "completion_mask": torch.ones(3, 4).long()}
    padded = dict(batch)
    padded["prompt_ids"] = torch.nn.functional.pad(batch["prompt_ids"], (4, 0))
    padded["prompt_mask"] = torch.nn.functional.pad(batch["prompt_mask"], (4, 0))
    torch.testing.assert_close(trainer.values(padded), trainer.values(batch), rtol=0, atol=1e-6)
    # V(s_t) is read before token t: changing the last token changes no value.
    other = {**batch, "completion_ids": batch["completion_ids"].clone()}
    other["completion_ids"][:, -1] = 7
    assert torch.equal(trainer.values(other), trainer.values(batch))
    assert not torch.equal(
        trainer.values({**other, "completion_ids": other["completion_ids"].flip(1)}), trainer.values(other)
    )


def test_activation_checkpointing_reaches_the_critic_and_changes_nothing(ppo, weights):
    runs = []
    for checkpointing in (False, True):
        runs.append(ppo(max_steps=2, gradient_checkpointing=checkpointing))
        runs[-1].train()
    assert any(getattr(module, "gradient_checkpointing", False) for module in runs[1].critic.modules())
    for name, value in weights(runs[1].model).items():
        torch.testing.assert_close(value, weights(runs[0].model)[name], rtol=0, atol=1e-6)


def test_ensemble_of_reward_models_with_its_disagreement_logged(ppo, reward, policy, classifier, tmp_path, logged):
    second = classifier(policy, tmp_path / "second", seed=6)
    rows = [{"prompt": [{"role": "user", "content": "lamp"}], "completion": f"desk {i}"} for i in range(8)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ensemble = RewardEnsemble([reward, second], str(tmp_path / "samples.jsonl"), mode="worst")
    trainer = ppo(reward_funcs=ensemble, max_steps=1, missing_eos_penalty=0.0)
    trainer.train()
    row = logged(trainer)[0]
    assert row["ensemble/std"] > 0 and row["rewards/reward_ensemble/mean"] == pytest.approx(row["objective/scores"])


def test_length_adaptive_lambda_changes_advantages_and_makes_returns_unbiased(ppo):
    trainer = ppo(length_adaptive_lambda=True, max_steps=1, kl_coef=0.0, missing_eos_penalty=0.0)
    trainer.train()
    for batch in trainer._buffered_inputs:
        mask = batch["value_mask"]
        # lambda is 1 for the returns: without KL they are the score at every token
        assert torch.allclose(batch["returns"] * mask, batch["returns"][:, :1] * mask, atol=1e-5)
