import math

import pytest
import torch

from rlhf_trl_ext.functional.objectives import rebalanced


def test_by_hand():
    # Gains 0 and 2 at rate 0.5: factors e^0.5 and e^-0.5 about their mean, then normalised to the sum of 1.
    found = rebalanced(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 2.0]), rate=0.5)
    share = math.exp(0.5) / (math.exp(0.5) + math.exp(-0.5))
    assert found.tolist() == pytest.approx([share, 1 - share])


def test_equal_gains_change_nothing_and_the_sum_stays():
    weights = torch.tensor([0.2, 0.8, 1.0])
    assert rebalanced(weights, torch.full((3,), 5.0), rate=1.0).tolist() == pytest.approx(weights.tolist())
    moved = rebalanced(weights, torch.tensor([0.0, 50.0, 50.0]), rate=1.0, least=0.1)
    assert moved.sum().item() == pytest.approx(2.0) and min(moved.tolist()) == pytest.approx(0.2)


def test_refusals():
    with pytest.raises(ValueError, match=r"allowed are 0 to 0.5 for 2 objectives"):
        rebalanced(torch.ones(2), torch.zeros(2), rate=0.1, least=0.6)
