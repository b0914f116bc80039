"""Importance weights: values by hand, and bias by enumerating every completion of a small world."""

import itertools
import math

import pytest
import torch

from rlhf_trl_ext.functional.importance import (
    bounded,
    effective_share,
    importance_ratios,
    tapered,
    weighted_reference,
)

VOCABULARY, HORIZON = 3, 4
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
# log ratios ln 2, ln 3 and one that does not count; ln 1/2 three times; a row without tokens
LOGPROBS = torch.tensor([[2.0, 3.0, 9.0], [0.5, 0.5, 0.5], [7.0, 7.0, 7.0]]).log()


def world(drift=None):
    """Log-probs `(N, T)` of every completion under a tabular policy and under mu; the policy's logits; rewards."""
    generator = torch.Generator().manual_seed(3)
    completions = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=HORIZON)))  # (N, T)
    starts = torch.tensor([sum(VOCABULARY**s for s in range(t)) for t in range(HORIZON)])
    states = starts + torch.stack([(completions[:, :t] * 3 ** torch.arange(t)).sum(1) for t in range(HORIZON)], dim=1)
    shape = (int(starts[-1]) + VOCABULARY ** (HORIZON - 1), VOCABULARY)
    logits, noise = (torch.randn(shape, generator=generator).double() for _ in range(2))
    rewards = torch.randn(len(completions), generator=generator).double()

    def logprobs(values):
        return values.log_softmax(-1)[states].gather(2, completions[:, :, None])[:, :, 0]

    logits.requires_grad_()
    mu = noise if drift is None else logits.detach() + drift * noise
    return logprobs(logits), logprobs(mu), logits, rewards


def relative_error(level, cap=math.inf, drift=None):
    """Of the expected gradient of TRL's loss, sampled from mu, against the gradient of the expected reward."""
    logprobs, behaviour, logits, rewards = world(drift)
    exact = torch.autograd.grad((logprobs.sum(1).exp() * rewards).sum(), logits, retain_graph=True)[0]
    prox, mask = logprobs.detach(), torch.ones_like(logprobs)
    weights = bounded(importance_ratios(prox, behaviour, mask, level), "truncate", cap)
    advantages = rewards[:, None] * (weights if weights.dim() == 2 else weights[:, None])
    ratio = (logprobs - prox).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum(1)
    estimate = torch.autograd.grad((behaviour.sum(1).exp() * surrogate).sum(), logits)[0]
    return ((estimate - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("drift", [None, 0.2, 0.5])
def test_sequence_weights_are_unbiased_and_token_weights_are_not(drift):
    assert relative_error("sequence", drift=drift) < 1e-12
    assert relative_error("token", drift=drift) > 0.01
    assert relative_error("geometric", drift=drift) > 0.01


def test_a_cap_costs_bias_that_shrinks_with_the_drift():
    far, near = relative_error("sequence", cap=2.0, drift=0.5), relative_error("sequence", cap=2.0, drift=0.05)
    assert far > 0.01 and near < 1e-12


def test_ratios_by_hand():
    token = importance_ratios(LOGPROBS, torch.zeros(3, 3), MASK, "token")
    torch.testing.assert_close(token, torch.tensor([[2.0, 3.0, 1.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]))
    sequence = importance_ratios(LOGPROBS, torch.zeros(3, 3), MASK, "sequence")
    torch.testing.assert_close(sequence, torch.tensor([6.0, 0.125, 1.0]))
    geometric = importance_ratios(LOGPROBS, torch.zeros(3, 3), MASK, "geometric")
    torch.testing.assert_close(geometric, torch.tensor([math.sqrt(6), 0.5, 1.0]))
    with pytest.raises(ValueError, match="is_level=row: allowed are token, sequence, geometric"):
        importance_ratios(LOGPROBS, LOGPROBS, MASK, "row")


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_the_policy_that_sampled_has_weight_one_exactly(level, mode):
    logprobs = -torch.rand(5, 7) * 30
    ratios = importance_ratios(logprobs, logprobs.clone(), torch.ones(5, 7), level)
    assert bounded(ratios, mode, 2.0, 0.5).eq(1).all()


def test_nothing_overflows():
    far = torch.full((1, 100), 50.0)
    for level in ("token", "sequence", "geometric"):
        assert importance_ratios(far, -far, torch.ones(1, 100), level).isfinite().all()


def test_bounds_by_hand():
    ratios = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0])
    torch.testing.assert_close(bounded(ratios, "truncate", 2.0), torch.tensor([0.1, 0.5, 1.0, 2.0, 2.0]))
    torch.testing.assert_close(bounded(ratios, "truncate", 2.0, 0.2), torch.tensor([0.2, 0.5, 1.0, 2.0, 2.0]))
    torch.testing.assert_close(bounded(ratios, "mask", 2.0, 0.5), torch.tensor([0.0, 0.5, 1.0, 2.0, 0.0]))
    with pytest.raises(ValueError, match="is_mode=cut: allowed are truncate and mask"):
        bounded(ratios, "cut", 2.0)


def test_topr_by_hand():
    weights, advantages = torch.tensor([0.5, 1.5, 0.5, 1.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    torch.testing.assert_close(tapered(weights, advantages), torch.tensor([1.0, 1.0, 0.5, 1.0]))
    both = tapered(weights[:, None].expand(4, 2), advantages)
    assert both.shape == (4, 2) and torch.equal(both[:, 0], both[:, 1])


def test_effective_share_by_hand():
    # (1 + 1 + 2)^2 / (3 * (1 + 1 + 4)) = 16 / 18
    ratios = torch.tensor([1.0, 1.0, 2.0, 100.0])
    assert effective_share(ratios, torch.tensor([1, 1, 1, 0])).item() == pytest.approx(16 / 18)
    assert effective_share(ratios * 7, torch.tensor([1, 1, 1, 0])).item() == pytest.approx(16 / 18)
    assert effective_share(torch.ones(4), torch.ones(4)).item() == 1
    assert effective_share(ratios, torch.zeros(4)).item() == 1


def test_a_weight_in_the_advantage_is_a_weight_on_the_loss():
    generator = torch.Generator().manual_seed(0)
    ratio, advantage, weight = (torch.rand(1000, generator=generator).double() * 3 for _ in range(3))
    advantage -= 1.5
    clipped = ratio.clamp(0.8, 1.2)
    outside = weight * torch.minimum(ratio * advantage, clipped * advantage)
    inside = torch.minimum(ratio * (weight * advantage), clipped * (weight * advantage))
    torch.testing.assert_close(inside, outside, rtol=0, atol=1e-15)


def test_the_gradient_of_a_weighted_kl_term_is_the_weight_times_its_own():
    behaviour = torch.tensor([0.5, 0.5, 0.5, 0.1, 0.9]).double().log()
    logprobs = torch.tensor([0.5, 0.25, 1e-3, 0.4, 0.3]).double().log()
    reference = torch.tensor([0.2, 0.6, 0.4, 0.3, 0.3]).double().log()
    shifted = weighted_reference(reference, logprobs, behaviour)
    free = logprobs.clone().requires_grad_()
    difference = shifted - free
    (difference.exp() - difference - 1).sum().backward()  # TRL's k3
    weight = torch.tensor([1.0, 0.5, 2e-3, 1.0, 1 / 3]).double()
    torch.testing.assert_close(free.grad, weight * (1 - (reference - logprobs).exp()), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(shifted[[0, 3]], reference[[0, 3]], rtol=1e-12, atol=0)  # no more likely under mu


def test_a_token_that_the_policy_avoids_has_a_bounded_kl_term():
    behaviour, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    for avoided in (-10.0, -100.0, -1e4):
        shift = weighted_reference(reference, torch.tensor([avoided]), behaviour) - avoided
        assert 0 < shift.item() < math.log(1 + 0.25 / 0.5) + 1e-4  # ref / mu, where k3 is e^10 and more without it
