import gzip
import json
import math
import time

import numpy as np
import pytest

from evaluation.verdicts.ranking import bradley_terry, every_pair, ranking
from evaluation.verdicts.statistics import in_words, prompts_needed, sign_test
from rlhf_trl_ext.judging.bias import length_bias, order_flip_rate, position_bias
from rlhf_trl_ext.statistics import cohen_kappa, mean_interval, wilson_interval


def test_wilson_by_hand():
    # 8 of 10, z = 1.959964: middle (0.8 + 0.19207) / 1.38415 = 0.71674, half 0.22653 -> 0.4902 .. 0.9433
    assert wilson_interval(8, 10) == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == pytest.approx(1.0)
    # the complement mirrors
    low, high = wilson_interval(3.5, 10)
    assert wilson_interval(6.5, 10) == pytest.approx([1 - high, 1 - low])
    with pytest.raises(ValueError, match="total=0"):
        wilson_interval(0, 0)


def test_without_ties_the_interval_of_a_win_rate_is_wilsons_with_students_quantile():
    # 240 of 400, t_399 = 1.96593, z^2 = 3.86488: middle (0.6 + 0.0048311) / 1.0096622 = 0.599043,
    # half 1.96593 / 1.0096622 sqrt(0.24 / 400 + 3.86488 / 640000) = 1.947116 x 0.0246178 = 0.047934
    assert mean_interval(np.array([1.0] * 240 + [0.0] * 160), (0, 1)) == pytest.approx([0.551109, 0.646977], abs=2e-6)
    # all won: 1 / (1 + z^2 / n) with t_19 = 2.09302; a bootstrap gives width 0
    assert mean_interval(np.ones(20), (0, 1)) == pytest.approx([1 / (1 + 2.09302**2 / 20), 1.0], abs=1e-5)
    # differences are the same on twice the scale, and ties count as zeros
    low, high = mean_interval(np.array([1.0, 0.5, 0.5, 0.0, 1.0]), (0, 1))
    assert mean_interval(np.array([1.0, 0, 0, -1, 1]), (-1, 1)) == pytest.approx([2 * low - 1, 2 * high - 1])
    assert mean_interval(np.ones(1), (0, 1)) == [0, 1]


@pytest.mark.parametrize(("wins", "ties"), [(0.9, 0.0), (0.95, 0.0), (0.9, 0.1), (0.5, 0.3)])
def test_intervals_of_win_rates_cover_at_twenty_prompts(wins, ties):
    """The percentile bootstrap covers .87 at .9 and .64 at .95."""
    drawn = np.random.default_rng(1).choice([1, 0.5, 0], p=[wins, ties, max(0.0, 1 - wins - ties)], size=(2000, 20))
    rate = wins + ties / 2
    covered = [low <= rate <= high for low, high in (mean_interval(values, (0, 1)) for values in drawn)]
    assert 0.92 <= np.mean(covered) <= 0.992  # at .95 what is possible jumps from .92 to .984


def test_the_interval_of_a_skewed_mean_covers():
    """Lognormal divergences, n = 20: Student covers .865 and the percentile bootstrap .845."""
    drawn = np.random.default_rng(2).lognormal(size=(600, 20))
    covered = [low <= math.exp(0.5) <= high for low, high in (mean_interval(v, resamples=500) for v in drawn)]
    assert np.mean(covered) > 0.9
    normal = np.random.default_rng(3).normal(size=(600, 20))
    assert np.mean([low <= 0 <= high for low, high in (mean_interval(v, resamples=500) for v in normal)]) < 0.98


def test_both_orders_of_a_pair_count_once():
    # 30 pairs, the first shown chosen in both orders or in none: 30 coins, not 60
    coins = np.random.default_rng(0).integers(0, 2, 30).astype(float)
    won, first = np.concatenate([coins, 1 - coins]), np.arange(60) < 30
    low, high = position_bias(won, first, np.tile(np.arange(30), 2))["first_choice_ci"]
    alone = mean_interval(coins, (0, 1))
    assert [low, high] == pytest.approx(alone, abs=0.01)
    narrow = position_bias(won, first)["first_choice_ci"]
    assert (high - low) > 1.3 * (narrow[1] - narrow[0])


def test_prompts_are_resampled_whole():
    # 50 prompts with 8 equal samples each know no more than 50 pairs: the interval is that of n = 50.
    prompts = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    wide = mean_interval(np.repeat(prompts, 8), (0, 1), groups=np.repeat(np.arange(50), 8))
    assert wide == pytest.approx(mean_interval(prompts, (0, 1)), abs=0.02)
    narrow = mean_interval(np.repeat(prompts, 8), (0, 1))
    assert wide[1] - wide[0] > 2.4 * (narrow[1] - narrow[0])  # sqrt(8) = 2.83


def test_pairing_removes_what_prompts_share():
    # a policy that differs from another on 4 of 100 prompts: paired, the interval excludes 0; unpaired it cannot
    other = np.tile([0.0, 1.0], 50)
    policy = other.copy()
    policy[[0, 2, 4, 6, 8, 10, 12]] = 1.0
    low, high = mean_interval(policy - other, (-1, 1))
    assert 0 < low < 0.07 < high
    assert mean_interval(policy, (0, 1))[0] < other.mean()


def test_sign_test_by_hand():
    # 8 wins, 2 losses, any ties: 2 (C(10,8) + C(10,9) + C(10,10)) / 1024 = 2 * 56 / 1024
    assert sign_test([1] * 8 + [0] * 2 + [0.5] * 30) == pytest.approx(112 / 1024)
    assert sign_test([0.5, 0.5]) == 1.0


def test_prompts_needed_by_hand():
    # p = 0.6 without ties: (1.95996 + 0.84162)^2 * 0.24 / 0.01 = 188.4 -> 189
    assert prompts_needed(np.array([1] * 6 + [0] * 4)) == 189
    assert prompts_needed(np.array([1, 0])) is None


def test_that_many_prompts_do_tell():
    # power 0.8 as promised: at n = 189 and p = 0.6 the sign of the normal interval is told in 4 of 5 experiments
    generator = np.random.default_rng(0)
    wins = generator.binomial(189, 0.6, 4000) / 189
    told = wins - 1.96 * np.sqrt(wins * (1 - wins) / 189) > 0.5
    assert told.mean() == pytest.approx(0.8, abs=0.03)


def test_kappa_by_hand():
    # agree on 3 of 4; first: 1/2 wins, second: 3/4 wins -> expected 3/8 + 1/8 = 1/2 -> (3/4 - 1/2) / (1/2)
    assert cohen_kappa([1, 1, 0, 0], [1, 1, 1, 0]) == pytest.approx(0.5)
    assert cohen_kappa([1, 0.5, 0], [1, 0.5, 0]) == 1.0
    assert cohen_kappa([1, 1], [1, 1]) is None
    assert cohen_kappa([1, 0], [0, 1]) == -1.0


def test_what_is_said_in_words():
    told = {"win_rate": 0.52, "win_rate_ci": [0.47, 0.57], "pairs": 400, "prompts_needed": 4905}
    assert in_words("dpo", "sft", told) == (
        "dpo is not distinguishable from sft: win rate 52.0% over 400 pairs, 95 % interval 47.0% to 57.0%; "
        "about 4,905 prompts would tell at this win rate."
    )
    assert in_words("a", "b", {**told, "win_rate_ci": [0.51, 0.57]}).startswith("a is better than b")
    assert in_words("a", "b", {**told, "win_rate_ci": [0.4, 0.49]}).startswith("a is worse than b")
    assert "no number of prompts" in in_words("a", "a", {**told, "prompts_needed": None})


def test_position_bias_by_hand():
    # First: won 3 of 4; second: won 1 of 4. First shown was chosen 3 + 3 times of 8.
    told = position_bias([1, 1, 1, 0, 1, 0, 0, 0], [True] * 4 + [False] * 4)
    assert (told["win_rate_shown_first"], told["win_rate_shown_second"]) == (0.75, 0.25)
    assert told["position_bias"] == 0.5 and told["first_choice_rate"] == 0.75
    assert (told["first_choices"], told["second_choices"]) == (6, 2)
    assert position_bias([1.0], [True])["position_bias"] is None
    assert order_flip_rate([1, 1, 0, 0.5], [1, 0, 0, 0]) == 0.5


def test_length_bias_by_hand():
    # decided and of unequal length: pairs 0, 1, 2; the longer won in 0 and 1
    told = length_bias([1, 0, 0, 0.5, 1], [10, -5, 3, 8, 0])
    assert told["longer_wins"] == pytest.approx(2 / 3)
    assert told["length_difference_mean"] == pytest.approx(16 / 5)
    assert length_bias([1, 0], [5, -5])["length_rule_kappa"] == 1.0
    assert length_bias([1, 1], [5, -5])["length_correlation"] is None


def test_bradley_terry_by_hand():
    # two players, 3 wins to 1, plus half a win each: logit of 3.5 / 5 between them
    strengths = bradley_terry(np.array([[0, 3], [1, 0]]))
    assert strengths[0] - strengths[1] == pytest.approx(math.log(3.5 / 1.5))
    assert strengths.sum() == pytest.approx(0)
    assert np.isfinite(bradley_terry(np.array([[0, 40], [0, 0]]))).all()


def test_ranking_recovers_strengths_and_says_what_is_distinct():
    generator = np.random.default_rng(0)
    true = {"a": 1.0, "b": 0.99, "c": -0.5, "d": -1.49}
    games = {
        (i, j): (generator.random(3000) < 1 / (1 + math.exp(true[j] - true[i]))).astype(float)
        for i, j in every_pair(list(true))
    }
    ranked = ranking(list(true), games, resamples=200)
    assert [row["policy"] for row in ranked][2:] == ["c", "d"]
    for row in ranked:
        assert row["strength"] == pytest.approx(true[row["policy"]], abs=0.1)
        assert row["interval"][0] < row["strength"] < row["interval"][1]
    assert [row["distinct_from_next"] for row in ranked] == [False, True, True, None]
    with pytest.raises(ValueError, match="same prompts"):
        ranking(["a", "b", "c"], {("a", "b"): np.ones(3), ("a", "c"): np.ones(4)})


def test_gpt4_on_reddit_summaries(shared):
    """Published (summarize_from_feedback_details): 640 of 1000, 0.716 shown first, 0.558 second, A 584, B 416."""
    with gzip.open(shared / "data/tldr/tldr_oai1b_vs_reference.jsonl.gz", "rt") as file:
        rows = [row for row in map(json.loads, file) if row.get("preferred")]
    won = np.array([row["preferred"] == "ours" for row in rows], dtype=float)
    shown_first = np.array([row["shuffled_index"] == 0 for row in rows])
    told = position_bias(won, shown_first)
    assert (len(rows), won.sum()) == (1000, 640)
    assert told["win_rate_shown_first"] == pytest.approx(0.7162, abs=5e-5)
    assert told["win_rate_shown_second"] == pytest.approx(0.5581, abs=5e-5)
    assert (told["first_choices"], told["second_choices"]) == (584, 416)
    assert wilson_interval(640, 1000) == pytest.approx([0.6098, 0.6692], abs=1e-4)
    differences = np.array([len(row["response"]) - len(row["reference"]) for row in rows])
    length = length_bias(won, differences)
    assert length["length_correlation"] == pytest.approx(0.278, abs=5e-4)
    assert length["length_difference_mean"] == pytest.approx(34.8, abs=0.05)


def test_a_hundred_thousand_pairs_take_seconds():
    values = np.random.default_rng(0).random(100_000)
    begin = time.process_time()
    low, high = mean_interval(values)
    assert time.process_time() - begin < 10
    # standard error of the mean of uniform values: sqrt(1/12 / 1e5) = 0.000913; the interval is 2 * 1.96 of it
    assert high - low == pytest.approx(2 * 1.96 * 0.000913, rel=0.1)
