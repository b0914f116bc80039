"""Differences between algorithms: intervals over seeds and prompts, several tests, words."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from evaluation.comparison.differences import compare, estimate, holm, seeds_needed


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
    assert told["interval"] == pytest.approx([2 - half, 2 + half], rel=1e-4)


def test_one_seed_has_an_interval_over_prompts():
    told = estimate([np.array([0.0, 1.0] * 50)], centre=0.5)
    assert told["interval"] == pytest.approx([0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05], abs=1e-4)
    assert told["p"] == 1.0


def test_seeds_of_the_same_prompts_by_hand():
    # seeds 2 x prompts 3: means 2 and 4 of seeds, 2, 3, 4 of prompts; MS 6, 2 and 0, so that se^2 = (6 + 2 - 0) / 6
    table = [np.array([1.0, 2, 3]), np.array([3.0, 4, 5])]
    assert estimate(table, crossed=True)["spread"] == pytest.approx(math.sqrt(8 / 6))
    assert estimate(table)["spread"] == pytest.approx(1.0)  # of means 2 and 4 alone


def test_crossed_intervals_cover():
    """Ten seeds on the same prompts: an interval over seeds alone covers .68."""
    generator, covered = np.random.default_rng(0), np.zeros(2)
    for _ in range(400):
        prompts = generator.normal(size=50)
        table = [0.1 * generator.normal() + prompts + generator.normal(size=50) for _ in range(10)]
        for place, crossed in enumerate((False, True)):
            low, high = estimate(table, crossed=crossed)["interval"]
            covered[place] += low <= 0 <= high
    assert covered[0] < 0.8 * 400 and covered[1] > 0.92 * 400


def test_that_many_seeds_do_tell():
    """Where z and .05 say 10 seeds, the power of the test that decides is .72, and .24 as the smallest of ten."""
    effect = (1.959964 + 0.841621) / math.sqrt(10)
    for tests, wrong in ((1, 0.75), (10, 0.3)):
        needed, generator = seeds_needed(effect, tests), np.random.default_rng(0)
        powers = []
        for seeds in (10, needed):
            drawn = generator.normal(effect, 1, size=(4000, seeds))
            statistic = drawn.mean(1) / (drawn.std(1, ddof=1) / math.sqrt(seeds))
            powers.append((2 * student.sf(np.abs(statistic), seeds - 1) < 0.05 / tests).mean())
        assert powers[0] < wrong and powers[1] == pytest.approx(0.8, abs=0.04)
    assert seeds_needed(5.0) == 3 and seeds_needed(1e-9) == math.inf


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("effect, tests", [(5.0, 45), (10.3, 300), (20.0, 300), (0.741, 300)])
def test_large_effects_among_many_comparisons_have_an_answer(effect, tests):
    """scipy's noncentral t has no number for many of these, and a solver on it answers 4 for the first, or nothing."""
    needed, generator = seeds_needed(effect, tests), np.random.default_rng(0)

    def power(seeds):
        drawn = generator.normal(effect * math.sqrt(seeds), 1, 400_000)
        statistic = drawn / np.sqrt(generator.chisquare(seeds - 1, 400_000) / (seeds - 1))
        return (np.abs(statistic) > student.ppf(1 - 0.025 / tests, seeds - 1)).mean()

    assert power(needed - 1) < 0.802 and power(needed) > 0.798


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_equal_algorithms_are_told_apart_at_most_as_often_as_stated(between):
    generator = np.random.default_rng(0)
    rejected = sum(estimate(runs(generator, 3, between))["p"] < 0.05 for _ in range(150))
    assert rejected <= 150 * 0.05 + 3 * math.sqrt(150 * 0.05 * 0.95)


def test_words_say_what_is_distinguishable_and_what_is_not():
    generator = np.random.default_rng(2)
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
