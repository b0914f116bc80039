"""Direct RLAIF through `trainer.train()`: async rewards, rows without a reward, groups compared within themselves."""

import pytest
import torch
import trl

from rlhf_trl_ext.judging.labellers import PairLabeller
from rlhf_trl_ext.judging.respondents import Reading, Respondent
from rlhf_trl_ext.rewards.ai import AIScore, AIWinRate
from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer
from rlhf_trl_ext.trainers.grpo_vi import GRPOVIConfig, GRPOVITrainer


class Counting(Respondent):
    """Likes long replies; cannot read those whose length is divisible by five."""

    name = "counting"

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
def test_a_labeller_rewards_completions(algorithm, make_trainer, policy, tmp_path, weights):
    trainer, config, settings = TRAINERS[algorithm]
    settings = {"num_generations": 4, "max_steps": 2, **settings}
    made = make_trainer(trainer, config, policy, tmp_path, AIScore(Counting()), **settings)
    rows = trained(made, weights)
    assert rows and all(0 <= row["ai/failed"] < 1 for row in rows) and any(row["ai/failed"] > 0 for row in rows)
    assert all(-1 <= row["rewards/ai_score/mean"] <= 1 for row in rows)


def test_ppo_takes_a_labeller_as_reward(ppo, weights):
    rows = trained(ppo(reward_funcs=AIScore(Counting()), max_steps=2), weights)
    assert rows and all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)


def test_groups_are_compared_within_themselves(make_trainer, policy, tmp_path, weights):
    reward = AIWinRate(PairLabeller(Counting()))
    settings = {"num_generations": 4, "max_steps": 2}
    rows = trained(make_trainer(trl.GRPOTrainer, trl.GRPOConfig, policy, tmp_path, reward, **settings), weights)
    assert rows and all(row["rewards/ai_win_rate/mean"] == pytest.approx(0.5) for row in rows)  # zero-sum: G / 2 over G
