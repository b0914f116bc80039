import math

import pytest
import torch
import trl


def distinct(completions, **kwargs):
    """Distinct characters: differs between the completions of an untrained model."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


@pytest.fixture
def offpolicy(policy, make_trainer, tmp_path):
    """`offpolicy(folder=..., **settings)`: an OffPolicyGRPOTrainer, not yet trained."""
    from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer

    def make(folder=tmp_path, reward_funcs=distinct, trainer_arguments=None, **settings):
        settings = {"num_generations": 4, "num_iterations": 1, "max_steps": 8, **settings}
        classes = (OffPolicyGRPOTrainer, OffPolicyGRPOConfig)
        return make_trainer(*classes, policy, folder, reward_funcs, trainer_arguments, **settings)

    return make


@pytest.mark.parametrize("iterations", [1, 2])
def test_without_replay_it_is_grpo_bit_for_bit(offpolicy, policy, make_trainer, tmp_path, weights, logged, iterations):
    settings = {"num_generations": 4, "num_iterations": iterations, "max_steps": 8, "beta": 0.1}
    bare = make_trainer(trl.GRPOTrainer, trl.GRPOConfig, policy, tmp_path / "bare", distinct, **settings)
    bare.train()
    ours = offpolicy(tmp_path / "ours", replay_ratio=0, **settings)
    ours.train()
    assert logged(ours) == logged(bare)
    assert all(torch.equal(value, weights(bare.model)[name]) for name, value in weights(ours.model).items())


def test_runs_and_logs(offpolicy, logged, weights):
    trainer = offpolicy(beta=0.1)
    before = weights(trainer.model)
    trainer.train()
    rows = logged(trainer)[:-1]
    for row in rows:
        print({k: v for k, v in row.items() if "/" in k and ("replay" in k or "loss" in k or "tokens" in k)})
    assert all(math.isfinite(row["loss"]) for row in rows)
