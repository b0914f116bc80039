"""TRL 1.12's PPO, in the environment that `make ppo-parity` builds."""

import pytest
from conftest import ROOT

REFERENCE = ROOT / ".venv-trl112" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(not REFERENCE.exists(), reason="TRL 1.12 is absent: run `make ppo-parity` once")
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_advantages_returns_and_weights_equal_those_of_trl_112(estimator):
    from evaluation.proofs.parity.ppo import TOLERANCE, compare

    found = compare(str(REFERENCE), estimator)
    assert 0 < found["ended"] < 1 and found["largest step"] > 1e-3  # rows of both kinds, and an update worth the name
    assert max(found["advantages"], found["returns"], found["weights"]) <= TOLERANCE, found
