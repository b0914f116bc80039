"""Direct RLAIF through `trainer.train()`: async rewards, rows without a reward, groups compared within themselves."""

import pytest
import torch
import trl

from rlhf_trl_ext.judging.inquiry import Reading
from rlhf_trl_ext.judging.language_model import LanguageModelJudge
from rlhf_trl_ext.rewards.ai import AIReward
from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer
from rlhf_trl_ext.trainers.grpo_vi import GRPOVIConfig, GRPOVITrainer


class Counting(LanguageModelJudge):
    """Likes long replies; cannot read those whose length is divisible by five."""

    def ask(self, inquiries, total=None, tolerant=False):
        assert tolerant and len(list(inquiries())) == total

    def reading(self, inquiry):
        shown = dict(inquiry.values)
        if "response" in shown:
            length = len(shown["response"])
            return Reading(None if length % 5 == 0 else 1 + 4 * min(length, 99) / 99, 1.0, "")
        return Reading(float(len(shown["first"]) > len(shown["second"])), 1.0, "")


TRAINERS = {
    "grpo": (trl.GRPOTrainer, trl.GRPOConfig, {}),
    "grpo_offpolicy": (OffPolicyGRPOTrainer, OffPolicyGRPOConfig, {}),
    "grpo_vi": (GRPOVITrainer, GRPOVIConfig, {}),
}


def trained(trainer, weights):
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    return [row for row in trainer.state.log_history if "reward" in row]  # those of steps that sampled


@pytest.mark.parametrize("algorithm", TRAINERS)
def test_a_judge_rewards_completions(algorithm, make_trainer, policy, tmp_path, weights):
    trainer, config, settings = TRAINERS[algorithm]
    settings = {"num_generations": 4, "max_steps": 2, **settings}
    reward = AIReward(Counting(model="counting", prompt="quality"))
    made = make_trainer(trainer, config, policy, tmp_path, reward, **settings)
    rows = trained(made, weights)
    assert rows and all(0 <= row["ai/failed"] < 1 for row in rows) and any(row["ai/failed"] > 0 for row in rows)
    assert all(-1 <= row["rewards/ai_score/mean"] <= 1 for row in rows)


def test_ppo_takes_a_judge_as_reward(ppo, weights):
    rows = trained(ppo(reward_funcs=AIReward(Counting(model="counting", prompt="quality")), max_steps=2), weights)
    assert rows and all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)


def test_groups_are_compared_within_themselves(make_trainer, policy, tmp_path, weights):
    reward = AIReward(Counting(model="counting"))
    settings = {"num_generations": 4, "max_steps": 2}
    rows = trained(make_trainer(trl.GRPOTrainer, trl.GRPOConfig, policy, tmp_path, reward, **settings), weights)
    assert rows and all(row["rewards/ai_win_rate/mean"] == pytest.approx(0.5) for row in rows)  # zero-sum: G / 2 over G
