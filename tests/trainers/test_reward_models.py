"""What may be a reward, and rewards that are no numbers: alike for all trainers that sample."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_trl_ext import (
    GRPOConfig,
    GRPOTrainer,
    GRPOVIConfig,
    GRPOVITrainer,
    OffPolicyGRPOConfig,
    OffPolicyGRPOTrainer,
    PPOConfig,
    PPOTrainer,
    RewardModel,
    RLOOConfig,
    RLOOTrainer,
)

ONLINE = {
    "grpo": (GRPOTrainer, GRPOConfig),
    "rloo": (RLOOTrainer, RLOOConfig),
    "ppo": (PPOTrainer, PPOConfig),
    "grpo_offpolicy": (OffPolicyGRPOTrainer, OffPolicyGRPOConfig),
    "grpo_vi": (GRPOVITrainer, GRPOVIConfig),
}


@pytest.fixture(params=ONLINE)
def online(request, make_trainer, policy, tmp_path):
    """`online(reward_funcs, **settings)`: a trainer of each algorithm that samples."""
    classes = ONLINE[request.param]
    return lambda functions, **more: make_trainer(
        *classes, policy, tmp_path, functions, **{"num_generations": 4, "steps_per_generation": 2, **more}
    )


def test_a_language_model_is_no_reward(online, policy):
    with pytest.raises(ValueError, match=r"reward_funcs=.* is a language model \(LlamaForCausalLM\) without a reward"):
        online(policy)


def test_a_reward_path_that_does_not_exist(online):
    with pytest.raises(ValueError, match=r"reward_funcs=/no/such/reward: no such folder or hub id of a reward model"):
        online(["/no/such/reward"])


@pytest.fixture(scope="module")
def reward_adapter(policy, tmp_path_factory):
    """A reward model that is an adapter, with its folder."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS", init_lora_weights=False)
    model = get_peft_model(model, config).eval()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.save_pretrained(folder)
    return model, tokenizer, str(folder)


def test_an_adapter_is_a_reward_model(online, reward_adapter):
    model, tokenizer, folder = reward_adapter
    trainer = online(folder, max_steps=1)
    chats = [[{"role": "user", "content": "lamp"}, {"role": "assistant", "content": word}] for word in ("a", "desk")]
    rewards = trainer._calculate_rewards([{}] * 2, [c[:1] for c in chats], [c[1:] for c in chats], [[1], [1]])[:, 0]
    expected = []
    for chat in chats:
        ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), return_tensors="pt").input_ids
        expected.append(model(ids).logits[0, 0].item())
    assert rewards.tolist() == pytest.approx(expected, abs=1e-4)
    assert RewardModel(folder)([c[:1] for c in chats], [c[1:] for c in chats]) == pytest.approx(expected, abs=1e-4)


def test_plain_texts_are_scored_as_they_are(reward):
    scorer = RewardModel(reward)
    ids = scorer.tokenizer("lamp desk", return_tensors="pt", add_special_tokens=False).input_ids
    assert scorer(["lamp"], [" desk"]) == pytest.approx([scorer.model(ids).logits[0, 0].item()], abs=1e-5)


def once_infinite(completions, trainer_state, **kwargs):
    """Infinite for the first completion of a batch, and once not a number."""
    return [math.inf if i == 0 else math.nan if i == 5 else float(i) for i in range(len(completions))]


def test_infinite_rewards_are_rows_without_one(online, logged, weights):
    trainer = online(once_infinite, max_steps=4, per_device_train_batch_size=4)
    trainer.train()
    rows = logged(trainer)[:-1]
    assert [row["rewards/once_infinite/missing"] for row in rows if "reward" in row] == [2.0]
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["reward"]) for row in rows if "reward" in row)
    assert all(value.isfinite().all() for value in weights(trainer.model).values())


def test_infinite_rewards_do_not_make_the_scale_of_the_reference(ppo):
    trainer = ppo(reward_funcs=once_infinite, score_center="reference", score_scale="reference", max_steps=1)
    trainer.train()
    # of 0 1 2 3 4 5 6 7 without the first and the sixth, four times: mean 23 / 6
    assert trainer.score_center == pytest.approx(23 / 6) and 0.5 < trainer.score_scale < 5
