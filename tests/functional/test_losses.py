import pytest
import torch

from rlhf_trl_ext.functional.policy_gradient import (
    clipped_value_loss,
    explained_variance,
    last_token,
    masked_mean,
    policy_statistics,
    with_phantom,
)


def gradient(value, old, target, clip=0.2):
    value = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    loss, clipped = clipped_value_loss(value, old * one, target * one, one, clip)
    return torch.autograd.grad(loss, value)[0].item(), clipped.item()


@pytest.mark.parametrize(
    ("value", "old", "target", "expected", "clipped"),
    [
        (0.1, 0.0, 1.0, -0.9, 0),  # inside the range: v - R
        (0.5, 0.0, 1.0, 0.0, 1),  # beyond the range towards the target: the clipped branch is larger, gradient 0
        (0.5, 0.0, -1.0, 1.5, 0),  # beyond the range away from the target: the unclipped branch is larger
        (-0.5, 0.0, -1.0, 0.0, 1),
        (-0.5, 0.0, 1.0, -1.5, 0),
    ],
)
def test_gradient_of_the_clipped_value_loss(value, old, target, expected, clipped):
    found, share = gradient(value, old, target)
    assert found == pytest.approx(expected, abs=1e-12) and share == clipped
    step = 1e-6
    one = torch.ones(1, 1, dtype=torch.float64)
    high, low = (clipped_value_loss((value + s) * one, old * one, target * one, one)[0] for s in (step, -step))
    assert ((high - low) / (2 * step)).item() == pytest.approx(expected, abs=1e-6)


def test_without_clipping_it_is_half_the_squared_error():
    assert gradient(0.5, 0.0, 1.0, clip=None) == (-0.5, 0.0)


def test_masked_tokens_do_not_count_and_an_empty_mask_gives_zero():
    values = torch.tensor([[1.0, 50.0]], requires_grad=True)
    loss, _ = clipped_value_loss(values, values.detach(), torch.zeros(1, 2), torch.tensor([[1, 0]]))
    assert loss == 0.5
    empty, _ = clipped_value_loss(values, values.detach(), torch.zeros(1, 2), torch.zeros(1, 2))
    assert empty == 0 and torch.autograd.grad(empty, values)[0].abs().max() == 0


def test_explained_variance_by_hand():
    # Var(1, 2, 3) = 1; residuals (0, 0, 1) have variance 1/3.
    returns, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3)
    assert explained_variance(torch.tensor([[1.0, 2.0, 2.0]]), returns, mask).item() == pytest.approx(2 / 3)
    assert explained_variance(torch.zeros(1, 3), torch.ones(1, 3), mask) == 0


def test_policy_statistics_by_hand():
    # ratios 1, 2 and 1/2; A > 0 clips above 1.2, A < 0 below 0.8: the second (A = 1) is clipped, the third (A = 1) not.
    ratio = torch.tensor([[1.0, 2.0, 0.5, 9.0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    found = policy_statistics(ratio.log(), torch.zeros(1, 4), torch.ones(1, 4), mask, 0.2, 0.2)
    assert found["clipfrac"].item() == pytest.approx(1 / 3)
    assert found["ratio"].item() == pytest.approx(3.5 / 3)
    assert found["approxkl"].item() == pytest.approx(0.5 * 2 * torch.log(torch.tensor(2.0)).item() ** 2 / 3)


def test_last_token_and_phantom_position():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])
    assert last_token(mask).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert with_phantom(mask).tolist() == [[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2)) == 0
