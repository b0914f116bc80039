"""The gradient estimate against the exact gradient, by enumerating every completion of a small world."""

import itertools

import torch

from rlhf_trl_ext.functional.policy_gradient import gae

VOCABULARY, HORIZON = 3, 4


def world():
    """Every completion (81 rows), a tabular policy on prefixes, and a reward of each completion; float64."""
    generator = torch.Generator().manual_seed(3)
    completions = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=HORIZON)))  # (N, T)
    # A prefix of length t is a number below 3^t; states of all lengths stand one after the other.
    starts = torch.tensor([sum(VOCABULARY**s for s in range(t)) for t in range(HORIZON)])
    places = torch.stack([(completions[:, :t] * 3 ** torch.arange(t)).sum(1) for t in range(HORIZON)], dim=1)
    states = starts + places  # (N, T)
    logits = torch.randn(int(starts[-1]) + VOCABULARY ** (HORIZON - 1), VOCABULARY, generator=generator).double()
    rewards = torch.randn(len(completions), generator=generator).double()
    return completions, states, logits.requires_grad_(), rewards, generator


def expected_gradients(lam, values_of):
    """The exact gradient of the expected reward, and the expectation of sum_t A_t grad log pi(y_t)."""
    completions, states, logits, rewards, generator = world()
    logprobs = logits.log_softmax(-1)[states].gather(2, completions[:, :, None])[:, :, 0]  # (N, T)
    probability = logprobs.sum(1).exp()
    exact = torch.autograd.grad((probability * rewards).sum(), logits, retain_graph=True)[0]
    values = values_of(states, probability.detach(), rewards, len(logits), generator)
    token_rewards = torch.zeros_like(values)
    token_rewards[:, -1] = rewards
    advantages, _ = gae(token_rewards, values, torch.ones_like(values), 1.0, lam)
    estimate = torch.autograd.grad((probability.detach()[:, None] * advantages * logprobs).sum(), logits)[0]
    return exact, estimate


def exact_values(states, probability, rewards, count, generator):
    weighted, mass = torch.zeros(2, count, dtype=torch.float64)
    for t in range(HORIZON):
        weighted.index_add_(0, states[:, t], probability * rewards)
        mass.index_add_(0, states[:, t], probability)
    return (weighted / mass)[states]


def random_values(states, probability, rewards, count, generator):
    return torch.randn(count, generator=generator).double()[states]


def test_any_values_are_unbiased_when_lambda_is_one():
    exact, estimate = expected_gradients(1.0, random_values)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-13)


def test_exact_values_are_unbiased_for_every_lambda():
    exact, estimate = expected_gradients(0.8, exact_values)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-13)


def test_random_values_are_biased_when_lambda_is_below_one():
    exact, estimate = expected_gradients(0.8, random_values)
    assert (estimate - exact).norm() / exact.norm() > 0.1  # the control: the two tests above can fail
