"""Differences between algorithms: intervals over seeds and prompts, several tests, words."""

import math

import numpy as np
import pytest

from evaluation.comparison.differences import compare, estimate, hierarchical_means, holm


def runs(generator, seeds, between, prompts=64, mean=0.0):
    return [generator.normal(mean + generator.normal(0, between), 0.3, size=prompts) for _ in range(seeds)]


def test_holm_by_hand():
    # Sorted .01 .02 .04: times 3, 2, 1 are .03 .04 .04, never falling.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_one_number_a_seed_is_students_interval():
    # Means 1, 2, 3: standard error 1 / sqrt(3), t_2 at 97.5 % is 4.3027.
    told = estimate([np.array([1.0]), np.array([2.0]), np.array([3.0])])
    half = 4.3027 / math.sqrt(3)
    assert told["mean"] == 2.0
    assert told["interval"] == pytest.approx([2 - half, 2 + half], rel=0.05)  # the bootstrap draws 2,000 times


def test_one_seed_has_an_interval_over_prompts():
    told = estimate([np.array([0.0, 1.0] * 50)], centre=0.5)
    assert told["interval"] == pytest.approx([0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05], abs=1e-4)
    assert told["p"] == 1.0


def test_resampled_means_vary_with_seeds_and_with_prompts():
    apart = [np.zeros(50), np.ones(50)]  # no spread over prompts: means are 0, 1/2 and 1
    assert set(np.round(hierarchical_means(apart), 6)) == {0.0, 0.5, 1.0}
    same = [np.array([0.0, 1.0] * 50)] * 2  # none over seeds: the deviation of a mean over 2 x 100 coins
    assert hierarchical_means(same).std() == pytest.approx(0.5 / math.sqrt(200), rel=0.1)


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_equal_algorithms_are_told_apart_at_most_as_often_as_stated(between):
    generator = np.random.default_rng(0)
    rejected = sum(estimate(runs(generator, 3, between))["p"] < 0.05 for _ in range(150))
    assert rejected <= 150 * 0.05 + 3 * math.sqrt(150 * 0.05 * 0.95)


def test_words_say_what_is_distinguishable_and_what_is_not():
    generator = np.random.default_rng(1)
    base = runs(generator, 3, 0.02)
    better = [own + 0.2 + generator.normal(0, 0.05, size=len(own)) for own in base]
    again = runs(generator, 3, 0.02)
    rows = compare({"a": base, "b": better, "c": again}, [("b", "a"), ("a", "c")], "gold reward")
    assert rows[0]["distinguishable"] and rows[0]["in_words"].startswith("b has a higher gold reward than a: +0.")
    assert not rows[1]["distinguishable"] and rows[1]["in_words"].startswith("a and c are not distinguishable in gold")
    assert "seeds would tell" in rows[1]["in_words"] and "adjusted for 2 comparisons" in rows[1]["in_words"]
    assert all(row["p_holm"] >= row["p"] for row in rows)


def test_an_estimate_needs_numbers():
    with pytest.raises(ValueError, match="a number from each"):
        estimate([np.array([1.0]), np.array([np.nan])])
