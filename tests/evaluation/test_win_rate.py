import json

import numpy as np
import pytest

from evaluation.judge import ScoreJudge
from evaluation.results import compare, describe, read_samples
from evaluation.win_rate import bootstrap_interval, win_rate

JUDGE = ScoreJudge("gold_reward")


def rows(*scores):
    return [
        {"prompt": [{"role": "user", "content": str(i)}], "gold_reward": s, "kl": 1.0} for i, s in enumerate(scores)
    ]


def test_wins_ties_and_losses_by_hand():
    result = win_rate(JUDGE, rows(1.0, 0.5, 0.0, 0.9), rows(0.5, 0.5, 0.5, 0.5))
    assert (result["wins"], result["ties"], result["losses"]) == (2, 1, 1)
    assert result["win_rate"] == pytest.approx((2 + 0.5) / 4)


def test_exchanging_the_sides_gives_the_complement():
    generator = np.random.default_rng(0)
    a, b = rows(*generator.random(50)), rows(*generator.random(50))
    assert win_rate(JUDGE, a, b)["win_rate"] == pytest.approx(1 - win_rate(JUDGE, b, a)["win_rate"])


def test_a_policy_against_itself_is_one_half():
    assert win_rate(JUDGE, rows(0.1, 0.2, 0.3), rows(0.1, 0.2, 0.3))["win_rate_ci"] == [0.5, 0.5]


def test_the_interval_agrees_with_the_normal_one_and_covers():
    # p = 0.6, n = 400: 0.6 +- 1.96 sqrt(0.24 / 400) = 0.552 .. 0.648
    low, high = bootstrap_interval(np.array([1.0] * 240 + [0.0] * 160))
    assert low == pytest.approx(0.552, abs=0.006) and high == pytest.approx(0.648, abs=0.006)
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.random(100) < 0.6, resamples=500)
        covered += low <= 0.6 <= high
    assert 180 <= covered <= 199  # nominal 190; 3.2 standard errors either way


def test_samples_of_other_prompts_are_refused():
    with pytest.raises(ValueError, match="different prompts"):
        win_rate(JUDGE, rows(1.0, 0.0), rows(1.0, 0.0)[::-1])
    with pytest.raises(ValueError, match="at least 2"):
        win_rate(JUDGE, rows(1.0), rows(0.0))


def test_a_judge_without_scores_says_so():
    with pytest.raises(ValueError, match=r"judge\.field=reward: 4 of 4 samples"):
        win_rate(ScoreJudge("reward"), rows(1.0, 0.0), rows(1.0, 0.0))


def test_means_are_none_where_there_is_no_score():
    told = describe(rows(1.0, 0.5))
    assert told["gold_reward_mean"] == 0.75 and told["kl_mean"] == 1.0 and told["reward_mean"] is None


def test_compare_reads_what_generate_writes(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(1.0, 0.5)))
    result = compare(JUDGE, rows(0.0, 0.0), {"dpo": read_samples(path)})
    assert result["dpo"]["win_rate"] == 1.0
    with pytest.raises(ValueError, match=r"no such file"):
        read_samples(tmp_path / "absent.jsonl")
