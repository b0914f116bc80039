"""Expected values are worked out by hand in the comments."""

import pytest

from evaluation.comparison.common_kl import at_kl, common_kl


def test_rewards_lie_on_the_line_between_the_neighbours_in_kl():
    points = [(4.0, 0.9), (1.0, 0.5), (2.0, 0.7)]  # in any order
    # Halfway from 1 to 2: .6; a quarter of the way from 2 to 4: .7 + .05.
    assert at_kl(points, 1.5) == pytest.approx(0.6) and at_kl(points, 2.5) == pytest.approx(0.75)
    assert at_kl(points, 4.0) == 0.9 and at_kl(points, 0.9) is None and at_kl(points, 4.1) is None


def test_algorithms_are_compared_where_most_of_them_have_been():
    near = [[(0.0, 0.5), (2.0, 0.9)], [(0.0, 0.6), (2.0, 1.0)]]
    far = [[(1.0, 0.6), (3.0, 0.8)], [(1.0, 0.6), (3.0, 0.8)]]
    away = [[(8.0, 0.9), (9.0, 0.9)]] * 2
    found = common_kl({"near": near, "far": far, "away": away})
    # Two algorithms have KL 1 and 2 between their tries on both seeds.
    assert found["levels"] == [1.0, 2.0] and found["rewards"]["away"] == [None, None]
    # At 1: .7 and .8 on the two seeds; at 2: .9 and 1. The other: .6, and halfway .7.
    assert [row["mean"] for row in found["rewards"]["near"]] == pytest.approx([0.75, 0.95])
    assert [row["mean"] for row in found["rewards"]["far"]] == pytest.approx([0.6, 0.7])
    # Deviation .0707 of two seeds, 12.706 / sqrt(2) of it.
    low, high = found["rewards"]["near"][0]["interval"]
    assert high - low == pytest.approx(2 * 12.706 * 0.0707107 / 2**0.5, rel=1e-3)


def test_one_seed_has_no_interval():
    (only,) = common_kl({"a": [[(0.0, 0.5), (1.0, 0.9)]], "b": [[(1.0, 0.5), (3.0, 0.9)]]})["rewards"]["a"]
    assert only["mean"] == 0.9 and only["interval"] is None


def test_without_a_common_kl_nothing_is_compared():
    assert common_kl({"a": [[(0.0, 0.5), (1.0, 0.9)]], "b": [[(2.0, 0.5), (3.0, 0.9)]]})["levels"] == []
