import json
import math

import pytest
import torch
import trl


def distinct(completions, **kwargs):
    """Distinct characters: differs between the completions of an untrained model."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def half_equal(completions, **kwargs):
    """The rewards of the second group of four are all equal."""
    return [float(place if place < 4 else 7) for place in range(len(completions))]


@pytest.fixture
def offpolicy(policy, make_trainer, tmp_path):
    """`offpolicy(folder=..., **settings)`: an OffPolicyGRPOTrainer, not yet trained. A batch has 2 groups of 4."""
    from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer

    def make(folder=tmp_path, reward_funcs=distinct, trainer_arguments=None, **settings):
        settings = {"num_generations": 4, "num_iterations": 1, "max_steps": 8, **settings}
        classes = (OffPolicyGRPOTrainer, OffPolicyGRPOConfig)
        return make_trainer(*classes, policy, folder, reward_funcs, trainer_arguments, **settings)

    return make


def watch(trainer):
    """What is sampled, drawn, stored and returned, batch by batch, while the trainer trains."""
    seen = {"fresh": [], "drawn": [], "stored": {}, "batches": []}
    sample, add, give = trainer.buffer.sample, trainer.buffer.add, trainer._generate_and_score_completions

    def sampled(count):
        seen["drawn"].append(sample(count))
        return seen["drawn"][-1]

    def added(groups):
        seen["fresh"].append([group.key for group in groups])
        for group in groups:
            seen["stored"][group.key] = {name: value.clone() for name, value in group.rows.items()}
        add(groups)

    def given(inputs):
        seen["batches"].append(give(inputs))
        return dict(seen["batches"][-1])

    trainer.buffer.sample, trainer.buffer.add, trainer._generate_and_score_completions = sampled, added, given
    return seen


@pytest.mark.parametrize("iterations", [1, 2])
def test_without_replay_it_is_grpo_bit_for_bit(offpolicy, policy, make_trainer, tmp_path, weights, logged, iterations):
    settings = {"num_generations": 4, "num_iterations": iterations, "max_steps": 8, "beta": 0.1}
    bare = make_trainer(trl.GRPOTrainer, trl.GRPOConfig, policy, tmp_path / "bare", distinct, **settings)
    bare.train()
    ours = offpolicy(tmp_path / "ours", replay_ratio=0, **settings)
    ours.train()
    assert logged(ours) == logged(bare)
    assert all(torch.equal(value, weights(bare.model)[name]) for name, value in weights(ours.model).items())
    replaying = offpolicy(tmp_path / "replaying", **settings)  # the control: another run with replay
    replaying.train()
    assert any(not torch.equal(value, weights(bare.model)[name]) for name, value in weights(replaying.model).items())


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_the_groups_of_the_batch_before_are_replayed_with_their_values_untouched(offpolicy, level):
    trainer = offpolicy(max_staleness=1, max_uses=1, beta=0.1, is_level=level, learning_rate=1e-2, ess_min=0)
    seen = watch(trainer)
    trainer.train()
    assert seen["fresh"] == [[2, 3], [4, 5], [6, 7], [8, 9]]
    assert [sorted(group.key for group in drawn) for drawn in seen["drawn"]] == [[], [2, 3], [4, 5], [6, 7]]
    far = 0.0
    for batch, drawn in zip(seen["batches"], seen["drawn"], strict=True):
        old = batch["is_replay"]
        assert old.tolist() == [False] * 8 + [True] * 4 * len(drawn)
        counts = batch["completion_mask"].sum()
        assert batch["num_items_in_batch"] == counts
        assert (batch["importance_weights"][~old] == 1).all()
        rows = iter(old.nonzero()[:, 0].tolist())
        for group in drawn:
            stored = seen["stored"][group.key]
            assert all(torch.equal(value, stored[name]) for name, value in group.rows.items()), group.key
            for line in range(4):
                row = next(rows)
                ids = {
                    name: batch[f"{name}_ids"][row][batch[f"{name}_mask"][row].bool()]
                    for name in ("prompt", "completion")
                }
                for name, value in ids.items():
                    assert torch.equal(value, stored[f"{name}_ids"][line][stored[f"{name}_mask"][line].bool()])
                assert batch["rewards"][row] == stored["rewards"][line]
                width = len(ids["completion"])
                logps = stored["sampling_per_token_logps"][line][:width]
                assert torch.equal(batch["sampling_per_token_logps"][row][:width], logps)
                drift = batch["old_per_token_logps"][row][:width] - logps
                ratio = {"token": drift, "sequence": drift.sum(), "geometric": drift.mean()}[level].exp()
                weight = batch["importance_weights"][row]
                weight = weight[:width] if level == "token" else weight
                torch.testing.assert_close(weight, ratio.clamp(max=5.0 if level == "sequence" else 2.0))
                advantage = batch["advantages"][row]
                advantage = advantage[:width] if level == "token" else advantage
                torch.testing.assert_close(advantage, stored["advantages"][line] * weight)
                far = max(far, drift.abs().max().item())
                reference = stored["ref_per_token_logps"][line][:width]
                shift = (batch["ref_per_token_logps"][row] - batch["old_per_token_logps"][row])[:width]
                pulled = drift.clamp(max=0).exp() * ((reference - drift - logps).exp() - 1)
                torch.testing.assert_close(shift.exp() - 1, pulled, rtol=1e-3, atol=1e-5)
    assert far > 1e-3  # the policy has moved, so that the weights say something


def test_training_moves_weights_and_reports(offpolicy, logged, weights):
    trainer = offpolicy(beta=0.1, max_steps=12)
    before = weights(trainer.model)
    trainer.train()
    assert all(not torch.equal(value, before[name]) for name, value in weights(trainer.model).items())
    rows = logged(trainer)[:-1]
    for name in ("size", "n_groups", "skipped", "frac_reward_zero_std", "staleness_mean", "staleness_max", "use_count"):
        assert any(f"replay/{name}" in row for row in rows), name
    for name in ("is_mean", "is_max", "frac_capped", "ess", "kl_behav_theta"):
        assert any(f"replay/{name}" in row for row in rows), name
    for name in ("loss/fresh", "loss/replay", "clip_ratio/fresh", "clip_ratio/replay"):
        found = [row[name] for row in rows if name in row]
        assert len(found) > 3 and all(map(math.isfinite, found)), name
    # 2 groups are sampled and, from the second of 6 batches on, 2 replayed
    assert [row["replay/n_groups"] for row in rows if "replay/n_groups" in row] == [0, 2, 2, 2, 2, 2]
    last = rows[-1]
    assert last["tokens/sampled"] == round(sum(row.get("completions/mean_length", 0) * 8 for row in rows))
    assert 1.5 * last["tokens/sampled"] < last["tokens/trained"] < 2 * last["tokens/sampled"]


def test_fill_replaces_groups_of_equal_rewards_and_no_others(offpolicy, logged):
    trainer = offpolicy(reward_funcs=half_equal, replay_mode="fill", max_staleness=1, max_uses=1)
    seen = watch(trainer)
    trainer.train()
    # of each batch's two groups only the first can teach: keys 2, 4, 6, 8
    assert [[group.key for group in drawn] for drawn in seen["drawn"]] == [[], [2], [4], [6]]
    for batch, drawn in zip(seen["batches"], seen["drawn"], strict=True):
        kept = [0, 1, 2, 3] if drawn else [0, 1, 2, 3, 7, 7, 7, 7]
        assert batch["rewards"].tolist() == [*kept, *(drawn[0].rows["rewards"].tolist() if drawn else [])]
    rows = [row for row in logged(trainer) if "replay/size" in row]
    assert [row["frac_reward_zero_std"] for row in rows] == [0.5] * 4
    assert [row["replay/frac_reward_zero_std"] for row in rows] == [0.5, 0, 0, 0]


def test_too_few_effective_samples_turn_replay_away(offpolicy, logged):
    trainer = offpolicy(ess_min=1.0, is_level="sequence", learning_rate=1e-2)
    seen = watch(trainer)
    trainer.train()
    rows = [row for row in logged(trainer) if "replay/size" in row]
    assert [row["replay/skipped"] for row in rows] == [0, 1, 1, 1] and all(row["replay/ess"] < 1 for row in rows[1:])
    assert all(len(batch["rewards"]) == 8 and not batch["is_replay"].any() for batch in seen["batches"])


def test_options_of_weights(offpolicy):
    coupled = offpolicy(decoupled=False, learning_rate=1e-2)
    topr = offpolicy(topr_positives=True, is_mode="mask", learning_rate=1e-2)
    for trainer in (coupled, topr):
        seen = watch(trainer)
        trainer.train()
        batch = seen["batches"][-1]
        old, weights = batch["is_replay"], batch["importance_weights"]
        if trainer is coupled:
            assert torch.equal(batch["old_per_token_logps"][old], batch["sampling_per_token_logps"][old])
            assert (weights == 1).all()
        else:
            good = batch["advantages"].sum(1) > 0
            assert (weights[good] == 1).all() and (weights[~good] <= 1).all() and (weights[~good & old] < 1).any()


def test_metrics_of_fresh_rows_are_those_without_replay(offpolicy):
    trainer = offpolicy(learning_rate=1e-2)
    seen = watch(trainer)
    trainer.train()
    both = {name: value for name, value in seen["batches"][-1].items() if value.dim()}
    fresh = {name: value[~both["is_replay"]] for name, value in both.items()}
    noise = torch.randn(both["old_per_token_logps"].shape, generator=torch.Generator().manual_seed(0))
    logprobs = both["old_per_token_logps"] + noise
    names, found = ("loss/fresh", "clip_ratio/fresh"), []
    for batch, values in ((both, logprobs), (fresh, logprobs[~both["is_replay"]])):
        trainer._metrics["train"].clear()
        trainer.record_loss(batch, values)
        found.append([trainer._metrics["train"][name][-1] for name in names])
        assert ("loss/replay" in trainer._metrics["train"]) == (batch is both)
    assert found[0] == pytest.approx(found[1], abs=1e-6) and found[0][1] > 0


def test_replayed_rows_have_no_correction_by_vllm_besides_their_weight():
    from rlhf_trl_ext.trainers.parts.replayed_batch import groups_of, merged

    ids, rewards = torch.arange(6).view(2, 3), torch.tensor([0.0, 1.0])
    fresh = {"prompt_ids": ids, "prompt_mask": torch.ones(2, 3), "completion_ids": ids, "rewards": rewards}
    fresh |= {"completion_mask": torch.ones(2, 3), "advantages": rewards, "sampling_per_token_logps": -ids.float()}
    fresh |= {"old_per_token_logps": torch.zeros(2, 3), "importance_weights": torch.ones(2)}
    fresh |= {"is_replay": torch.zeros(2).bool(), "num_items_in_batch": torch.tensor(6)}
    for ratio in (torch.full((2, 3), 0.5), torch.full((2, 1), 0.5)):  # by token and by sequence
        batch = {**fresh, "importance_sampling_ratio": ratio}
        both = merged(batch, groups_of(batch, 2, 0, 1), torch.ones(2).bool(), pad_token_id=0)
        assert both["importance_sampling_ratio"].tolist() == [[0.5] * ratio.shape[1]] * 2 + [[1.0] * ratio.shape[1]] * 2
        assert torch.equal(both["old_per_token_logps"][2:], fresh["sampling_per_token_logps"])


@pytest.mark.parametrize(
    "settings",
    [
        {"off_policy_mask_threshold": 0.5},
        {"loss_type": "cispo", "epsilon_high": 5.0},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"replay_ratio": 2, "steps_per_generation": 4, "per_device_train_batch_size": 2},
        {"replay_strategy": "reward", "scale_rewards": "batch"},
    ],
    ids=["opsm", "cispo", "gspo", "more steps than samples", "reward"],
)
def test_it_goes_with_trl_options(offpolicy, logged, settings):
    trainer = offpolicy(**settings)
    trainer.train()
    rows = logged(trainer)[:-1]
    assert all(math.isfinite(row["loss"]) for row in rows) and any("loss/replay" in row for row in rows)


def test_evaluation_neither_replays_nor_stores(offpolicy):
    trainer = offpolicy(per_device_eval_batch_size=4)
    trainer.train()
    now, kept = trainer.buffer.now, [(group.key, group.uses) for group in trainer.buffer.groups]
    metrics = trainer.evaluate(trainer.train_dataset.select(range(4)))
    assert math.isfinite(metrics["eval_loss"]) and not any("replay" in name for name in metrics)
    assert (now, kept) == (trainer.buffer.now, [(group.key, group.uses) for group in trainer.buffer.groups])


@pytest.mark.parametrize("step", [3, pytest.param(4, marks=pytest.mark.slow)], ids=["within a batch", "between two"])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(offpolicy, tmp_path, step, weights, logged):
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": None, "beta": 0.1}
    whole = offpolicy(tmp_path / "whole", **settings)
    whole.train()
    resumed = offpolicy(tmp_path / "resumed", **settings)
    checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert logged(resumed, "train_loss") == logged(whole, "train_loss")
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())
    # the control: without its buffer it refuses
    (checkpoint / "replay_0.safetensors").unlink()
    with pytest.raises(ValueError, match=r"replay_0.safetensors is missing: the replay buffer cannot be restored"):
        offpolicy(tmp_path / "again", **settings).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay_ratio": -1}, "replay_ratio=-1: 0 to 8 is needed"),
        ({"replay_mode": "both"}, "replay_mode=both: allowed are add, fill"),
        ({"is_level": "row"}, "is_level=row: allowed are token, sequence, geometric"),
        ({"is_cap": 0.5}, "is_cap=0.5: at least 1 is needed"),
        ({"replay_ratio": 0.25}, "replay_ratio=0.25 of 2 groups in a process is none"),
        ({"loss_type": "vespo"}, "replay_ratio above 0 does not go with"),
        ({"top_p": 0.9, "top_k": 50}, "top_p=0.9, top_k=50: transformers samples from a truncated distribution"),
        ({"min_p": 0.1}, "min_p=0.1: transformers samples from a truncated distribution"),
        ({"replay_ratio": 0, "replay_data": "x.jsonl"}, "replay_data=x.jsonl with replay_ratio=0"),
        ({"replay_data": "x.jsonl"}, "path=x.jsonl does not exist"),
    ],
)
def test_wrong_setups_are_refused_in_a_sentence(offpolicy, settings, message):
    with pytest.raises(ValueError, match=message):
        offpolicy(**settings)


def test_one_large_ratio_does_not_turn_the_replay_away(offpolicy):
    """One of 300 among 10,000; unbounded, the share is (9,999 + 300)^2 / (10,000 (9,999 + 90,000)) = .106."""
    trainer = offpolicy()
    old, drift = torch.zeros(100, 100), torch.zeros(100, 100)
    drift[3, 7] = math.log(300)
    ones = torch.ones(100, 100).long()
    batch = {"advantages": torch.ones(100), "is_replay": torch.ones(100).bool(), "completion_mask": ones}
    batch |= {"old_per_token_logps": old, "sampling_per_token_logps": old - drift}
    # bounded at 2: (9,999 + 2)^2 / (10,000 (9,999 + 4))
    assert trainer._weigh(batch) == pytest.approx(10_001**2 / (10_000 * 10_003), rel=1e-6)


def test_groups_that_are_turned_away_come_again(offpolicy):
    trainer = offpolicy(ess_min=1.0, learning_rate=1e-2, max_staleness=2, max_uses=1)
    seen = watch(trainer)
    trainer.train()
    # used once, a group would be gone: of batches 1 to 4, those of 1 are drawn in 2, and again or not in 3
    assert all(len(drawn) == 2 for drawn in seen["drawn"][1:])
    assert all(not batch["is_replay"].any() for batch in seen["batches"])
    assert len(trainer.buffer) == 6 and all(group.uses == 0 for group in trainer.buffer.groups)


def test_without_learning_ratios_are_one_in_spite_of_dropout(offpolicy):
    from peft import LoraConfig

    lora = LoraConfig(r=4, lora_alpha=400, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.5)
    lora.init_lora_weights = False  # or B = 0 hides the dropout
    trainer = offpolicy(learning_rate=0.0, trainer_arguments={"peft_config": lora}, max_steps=4)
    seen = watch(trainer)
    trainer.train()
    replayed = torch.cat([batch["importance_weights"][batch["is_replay"]].flatten() for batch in seen["batches"]])
    torch.testing.assert_close(replayed, torch.ones_like(replayed), rtol=0, atol=1e-3)


def test_past_completions_end_with_the_tokenizers_own_end_token(offpolicy, policy, tmp_path):
    rows = [{"prompt": "lamp", "completion": "desk " * (i + 1), "reward": i} for i in range(4)]
    trainer = offpolicy(max_completion_length=32)
    trainer.eos_token_ids = [7, trainer.processing_class.eos_token_id]  # as a list in a generation_config.json
    trainer.args.replay_data_policy = policy
    from rlhf_trl_ext.trainers.parts.past_completions import read_past

    (chunk,) = read_past(trainer, past(tmp_path, rows))
    ends = [
        ids[mask.bool()][-1].item() for ids, mask in zip(chunk["completion_ids"], chunk["completion_mask"], strict=True)
    ]
    assert ends == [trainer.processing_class.eos_token_id] * 4 and 7 not in ends


def past(folder, rows):
    path = folder / "past.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_past_completions_are_replayed_from_the_first_batch_on(offpolicy, policy, tmp_path):
    messages = [{"role": "user", "content": "lamp"}]
    known = [
        {"prompt": messages, "completion_ids": [20 + i, 30, 40], "logprobs": [-1.0, -2.0, -3.0], "reward": i}
        for i in range(4)
    ]
    told = [{"prompt": "lamp", "completion": "desk " * (i + 1), "reward": i % 2} for i in range(5)]
    data = past(tmp_path, [*known, *told])
    settings = {"replay_data_policy": policy, "max_steps": 4, "beta": 0.1, "max_uses": 1, "ess_min": 0}
    settings["max_completion_length"] = 32
    trainer = offpolicy(replay_data=data, **settings)
    seen = watch(trainer)
    trainer.train()
    assert sorted(group.key for group in seen["drawn"][0]) == [-2, -1]
    rows = {group.key: group.rows for group in seen["drawn"][0]}
    assert rows[-1]["completion_ids"].tolist() == [[20 + i, 30, 40] for i in range(4)]
    assert rows[-1]["sampling_per_token_logps"].tolist() == [[-1, -2, -3]] * 4
    # rewards 0 1 2 3: mean 1.5, standard deviation sqrt(5 / 3)
    expected = (torch.arange(4.0) - 1.5) / (math.sqrt(5 / 3) + 1e-4)
    torch.testing.assert_close(rows[-1]["advantages"], expected)
    assert (rows[-2]["completion_ids"] == trainer.processing_class.eos_token_id).sum() == 4
    # the model that sampled them, the reference and the policy of the first batch are one
    counts = rows[-2]["completion_mask"].bool()
    torch.testing.assert_close(rows[-2]["sampling_per_token_logps"][counts], rows[-2]["ref_per_token_logps"][counts])
    last = next(place for place, group in enumerate(seen["drawn"][0]) if group.key == -2)
    batch = seen["batches"][0]
    weights = batch["importance_weights"][8 + 4 * last : 12 + 4 * last]
    torch.testing.assert_close(weights, torch.ones_like(weights), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "lamp", "completion": "desk"}], "past.jsonl:1: prompt and reward are needed"),
        ([{"prompt": "lamp", "completion": "desk", "reward": 1}], "completion_ids and as many logprobs are needed"),
        ([{"prompt": "lamp", "completion_ids": [3, 4], "logprobs": [0.0], "reward": 1}], "as many logprobs"),
        ([{"prompt": "lamp", "completion_ids": [3], "logprobs": [0.0], "reward": 1}] * 3, "no prompt has num_gen"),
        (
            [{"prompt": "lamp", "completion_ids": [3] * 9, "logprobs": [0.0] * 9, "reward": 1}] * 4,
            "max_completion_length=8",
        ),
    ],
)
def test_past_completions_that_lack_something_are_refused(offpolicy, tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        offpolicy(replay_data=past(tmp_path, rows))
