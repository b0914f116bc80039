import pytest
import torch

from rlhf_trl_ext.functional.ensembles import aggregate

REWARDS = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # two models, two completions


def test_by_hand():
    # First completion: mean 2, minimum 1, variance 1; the models agree about the second.
    assert aggregate(REWARDS, "mean").tolist() == [2.0, 0.0]
    assert aggregate(REWARDS, "worst").tolist() == [1.0, 0.0]
    assert aggregate(REWARDS, "uncertainty", weight=0.5).tolist() == [1.5, 0.0]


def test_properties():
    rewards = torch.randn(5, 40, dtype=torch.float64)
    for mode in ("mean", "worst", "uncertainty"):
        torch.testing.assert_close(aggregate(rewards[torch.randperm(5)], mode), aggregate(rewards, mode))
        assert torch.equal(aggregate(rewards[:1], mode), rewards[0])
    assert torch.equal(aggregate(rewards, "uncertainty", weight=0.0), aggregate(rewards, "mean"))
    assert (aggregate(rewards, "worst") <= aggregate(rewards, "mean")).all()


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode=median: allowed are mean, worst, uncertainty"):
        aggregate(REWARDS, "median")
