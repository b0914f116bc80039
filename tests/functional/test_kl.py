import pytest
import torch

from rlhf_trl_ext.functional.policy_gradient import adapted_coefficient, kl_estimate


def test_estimators_by_hand_and_in_expectation():
    # policy (1/2, 1/2), reference (1/4, 3/4): KL = 1/2 log 2 + 1/2 log(2/3).
    policy, reference = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    exact = (0.5 * (policy - reference)).sum()
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((0.5 * kl_estimate(policy, reference, estimator)).sum(), exact)
    assert kl_estimate(policy, reference, "k3").min() >= 0
    assert kl_estimate(policy, reference, "k1")[1] < 0


def test_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="kl_estimator=k2: allowed are k1 and k3"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k2")


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (7.2, 1.00128), (60.0, 1.00128), (0.0, 0.99872), (6.6, 1.00064)],  # 64 sequences, horizon 10000
)
def test_adaptive_coefficient(kl, factor):
    assert adapted_coefficient(0.2, kl, 6.0, 10_000, 64) == pytest.approx(0.2 * factor, rel=1e-12)
