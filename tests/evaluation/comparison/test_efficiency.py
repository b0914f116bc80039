"""Tokens to a reward, with runs that never reach it."""

import numpy as np
import pytest

from evaluation.comparison.efficiency import final_reward, interval, restricted_mean, summarise, tokens_to


def line(slope, budget=1000, steps=100):
    tokens = np.linspace(0, budget, steps + 1)[1:]
    return tokens, slope * tokens / budget


def test_restricted_mean_by_hand():
    tokens, reached = np.array([200.0, 600.0, 1000.0]), np.array([True, True, False])
    # Survival 1 up to 200, 2/3 up to 600, 1/3 up to 1000.
    assert restricted_mean(tokens, reached, 1000) == pytest.approx(200 + 400 * 2 / 3 + 400 / 3)
    # A run that was cut off at 300 says nothing later: 1 up to 200, 2/3 up to 600 of the other two, then 0.
    cut = restricted_mean(np.array([200.0, 300.0, 600.0]), np.array([True, False, True]), 1000)
    assert cut == pytest.approx(200 + 400 * 2 / 3)
    assert restricted_mean(np.array([900.0]), np.array([False]), 500) == 500


def test_a_line_reaches_its_target_half_a_window_late():
    tokens, reached = tokens_to(0.5, line(1.0), width=100)
    assert reached and tokens == pytest.approx(550, abs=10)
    assert tokens_to(2.0, line(1.0), width=100) == (1000.0, False)
    assert final_reward(line(1.0), 100) == pytest.approx(0.95, abs=0.01)


def test_censored_runs_count():
    found = summarise({"fast": [line(2.0), line(2.0)], "slow": [line(0.4), line(1.0)]}, [0.6, 0.6])
    assert found["fast"]["reached_count"] == 2 and found["slow"]["reached_count"] == 1
    assert found["slow"]["reached"] == [False, True]
    # The mean of the budget, 1000, and of what the other took.
    assert found["slow"]["mean"] == pytest.approx((1000 + found["slow"]["tokens"][1]) / 2)
    assert found["fast"]["mean"] < found["slow"]["mean"] and found["slow"]["interval"][1] == 1000
    assert found["fast"]["interval"] is None  # two seeds with one value: no width can be had


def test_the_interval_over_few_seeds_covers():
    """Of 3 seeds, a percentile bootstrap covers 75 %. By hand: 100, 200 and 300 have 200 +- 4.3027 x 100 / sqrt(3)."""
    reached = np.ones(3, bool)
    assert interval(np.array([100.0, 200, 300]), reached, 500) == pytest.approx([0, 448.41], abs=0.01)
    generator = np.random.default_rng(0)
    drawn = generator.normal(500, 100, size=(300, 3))
    covered = [low <= 500 <= high for low, high in (interval(tokens, reached, 10_000) for tokens in drawn)]
    assert 0.91 <= np.mean(covered) <= 0.985
