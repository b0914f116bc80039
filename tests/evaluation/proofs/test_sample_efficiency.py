import numpy as np
import pytest

from evaluation.proofs.speed.sample_efficiency import distances, ratio, summary


def line(slope, offset=0.0):
    """A reward that rises with the sampled tokens, in 100 batches of 10."""
    tokens = np.arange(1, 101) * 10.0
    return tokens, offset + slope * tokens


def test_twice_the_slope_needs_half_the_tokens_on_every_scale():
    # Smoothed over the last 200 of 1000 tokens, a line ends at the value that it has at 900 + 5. With twice the slope
    # that value is the mean of the tokens around 452.5, which are the last 200 at 552.5 - 5.
    baselines = [line(1.0), line(5.0, offset=-3)]
    found = summary(baselines, [line(2.0), line(10.0, offset=-3)])
    assert found[0] == pytest.approx(0.5475, abs=0.005) and found[1] == pytest.approx([0.5475, 0.5475], abs=0.02)
    assert summary(baselines, baselines) == (1, [1, 1])
    assert summary([line(1.0)], [line(2.0)])[1] is None
    assert summary(baselines, [line(2.0), line(0.5)])[1] is None  # one seed alone does not reach it


def test_a_reward_that_is_not_reached_has_no_ratio():
    assert ratio(*distances([line(1.0)], [line(0.5)])) == np.inf
