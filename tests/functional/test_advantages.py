import pytest
import torch

from rlhf_trl_ext.functional.policy_gradient import gae, length_adaptive_lambda, whiten


def ragged(rows=16, tokens=9, seed=0):
    """Random masks with holes, a row of one token, an empty row and a full row; rewards and values in float64."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(rows, tokens, generator=generator) < 0.7).long()
    mask[0], mask[1], mask[2] = 0, 1, 0
    mask[2, 3] = 1
    rewards, values = torch.randn(2, rows, tokens, generator=generator, dtype=torch.float64)
    return rewards * mask, values, mask


def defined(rewards, values, gamma, lam):
    """`A_t = sum_l (gamma lam)^l delta_{t+l}` of one row without holes, in O(T^2)."""
    after = torch.cat([values[1:], values.new_zeros(1)])
    delta = rewards + gamma * after - values
    return [sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, len(delta))) for t in range(len(delta))]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_recursion_is_the_definition_on_ragged_rows_with_holes(gamma, lam):
    rewards, values, mask = ragged()
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row in range(len(mask)):
        kept = mask[row].bool()
        expected = torch.tensor(defined(rewards[row][kept], values[row][kept], gamma, lam), dtype=torch.float64)
        torch.testing.assert_close(advantages[row][kept], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(returns[row][kept], expected + values[row][kept], rtol=0, atol=1e-12)
        assert not advantages[row][~kept].any() and not returns[row][~kept].any()


def test_three_tokens_by_hand():
    # gamma 1, lam 1/2, r = (0, 0, 1), V = (1/2, 1/4, 0): delta = (-1/4, -1/4, 1);
    # A_3 = 1, A_2 = -1/4 + 1/2 = 1/4, A_1 = -1/4 + 1/8 = -1/8.
    advantages, returns = gae(
        torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.25, 0.0]]), torch.ones(1, 3), 1.0, 0.5
    )
    assert advantages.tolist() == [[-0.125, 0.25, 1.0]]
    assert returns.tolist() == [[0.375, 0.5, 1.0]]


def test_a_hole_is_as_if_the_position_were_not_there():
    rewards, values = torch.tensor([[0.0, 7.0, 1.0]]), torch.tensor([[0.5, 99.0, 0.25]])
    with_hole, _ = gae(rewards, values, torch.tensor([[1, 0, 1]]), 1.0, 0.9)
    without, _ = gae(rewards[:, [0, 2]], values[:, [0, 2]], torch.ones(1, 2), 1.0, 0.9)
    assert with_hole[0, [0, 2]].tolist() == without[0].tolist() and with_hole[0, 1] == 0


def test_with_lambda_and_gamma_one_the_return_does_not_depend_on_the_values():
    rewards, values, mask = ragged()
    advantages, returns = gae(rewards, values, mask, 1.0, 1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)  # rewards are 0 where the mask is 0
    torch.testing.assert_close(returns, to_go * mask, rtol=0, atol=1e-12)
    torch.testing.assert_close(advantages, (to_go - values) * mask, rtol=0, atol=1e-12)


def test_padding_on_the_left_or_right_changes_nothing():
    rewards, values, mask = ragged()
    advantages, _ = gae(rewards, values, mask)
    wide = [torch.nn.functional.pad(x, (3, 2), value=value) for x, value in ((rewards, 5), (values, 5), (mask, 0))]
    assert torch.equal(gae(*wide)[0][:, 3:-2], advantages)


def test_lambda_of_each_row():
    rewards, values, mask = ragged()
    lam = torch.linspace(0.1, 1, len(mask), dtype=torch.float64)
    advantages, _ = gae(rewards, values, mask, 1.0, lam)
    for row in range(len(mask)):
        alone, _ = gae(rewards[row : row + 1], values[row : row + 1], mask[row : row + 1], 1.0, lam[row].item())
        assert torch.equal(alone[0], advantages[row])


def test_length_adaptive_lambda_by_hand():
    # 1 - 1 / (0.05 * 400) = 0.95; at 200 tokens 0.9, the floor for anything shorter; 0.98 at 1000.
    mask = torch.arange(1000)[None] < torch.tensor([[400], [200], [10], [1000], [0]])
    assert length_adaptive_lambda(mask).tolist() == pytest.approx([0.95, 0.9, 0.9, 0.98, 0.9])


def test_with_zero_values_and_one_epoch_the_gradient_is_reinforce_with_reward_to_go():
    # One token position per step: logits (B, T, vocabulary); reward includes the KL term; whitening off.
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(3, (4, 5), generator=generator)
    mask = (torch.arange(5)[None] < torch.tensor([[5], [3], [1], [4]])).double()
    rewards = torch.randn(4, 5, generator=generator, dtype=torch.float64) * mask
    advantages, _ = gae(rewards, torch.zeros_like(rewards), mask, 1.0, 1.0)
    logprobs = logits.log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]
    ratio = (logprobs - logprobs.detach()).exp()
    loss = -(torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages) * mask).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    # By hand: d/dlogits of -log p(y) G is -(onehot(y) - p) G, with G the reward to go.
    to_go = rewards.flip(1).cumsum(1).flip(1) * mask
    score = torch.nn.functional.one_hot(tokens, 3).double() - logits.detach().softmax(-1)
    torch.testing.assert_close(gradient, -score * to_go[:, :, None], rtol=0, atol=1e-12)


def test_whitening_by_hand_and_over_processes():
    # 1, 2, 3 count: mean 2, unbiased variance 1; the 100 does not.
    whitened = whiten(torch.tensor([[1.0, 2.0], [3.0, 100.0]]), torch.tensor([[1, 1], [1, 0]]))
    torch.testing.assert_close(whitened, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    values = torch.randn(6, 4, dtype=torch.float64)
    mask = torch.rand(6, 4) < 0.8
    other = (values[3:].double(), mask[3:].double())
    sums = iter(
        [
            torch.stack([(other[0] * other[1]).sum(), other[1].sum()]),
            torch.stack([(other[0] * other[1]).sum(), other[1].sum()]),
            torch.stack([((other[0] - (values * mask).sum() / mask.sum()) ** 2 * other[1]).sum(), other[1].sum()]),
        ]
    )
    split = whiten(values[:3], mask[:3], total=lambda totals: totals + next(sums))
    torch.testing.assert_close(split, whiten(values, mask)[:3], rtol=0, atol=1e-12)


def test_degenerate_rows_stay_finite():
    assert whiten(torch.full((2, 3), 5.0), torch.ones(2, 3)).abs().max() == 0
    assert not whiten(torch.randn(2, 3), torch.zeros(2, 3)).any()
    advantages, returns = gae(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([[1], [0]]))
    assert advantages.tolist() == [[-1.0], [0.0]] and returns.tolist() == [[0.0], [0.0]]
