import numpy as np
import pytest

from evaluation.verdicts.pairwise import judge_pairs
from evaluation.verdicts.results import describe
from evaluation.verdicts.win_rate import summary
from rlhf_trl_ext.judging.judge import ScoreJudge
from rlhf_trl_ext.judging.verdicts import Verdict

JUDGE = ScoreJudge("gold_reward")


def win_rate(judge, policy, baseline):
    verdicts = judge_pairs(judge, {"policy": policy, "baseline": baseline}, [("policy", "baseline")])
    return summary(verdicts["policy", "baseline"], policy, baseline)


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
    summary = win_rate(JUDGE, rows(0.1, 0.2, 0.3), rows(0.1, 0.2, 0.3))
    low, high = summary["win_rate_ci"]  # three ties say little, so it has a width
    assert summary["win_rate"] == 0.5 and 0 < low < 0.5 and low + high == pytest.approx(1)


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


def test_unparsable_verdicts_are_counted_apart():
    verdicts = [Verdict(1.0, 0.9, 1.0, 1.0), Verdict(0.5, 0.5, 1.0, 0.0), Verdict(None), Verdict(0.0, 0.2, 0.0, 0.0)]
    told = summary(verdicts, rows(0, 0, 0, 0), rows(0, 0, 0, 0))
    assert (told["wins"], told["ties"], told["losses"], told["unparsable"], told["pairs"]) == (1, 1, 1, 1, 3)
    assert told["win_rate"] == 0.5 and told["preference_mean"] == pytest.approx(1.6 / 3)
    # shown first it won 2 of 3, shown second 1 of 3: one of three pairs flipped
    assert told["order_flip_rate"] == pytest.approx(1 / 3)
    assert told["position"]["position_bias"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="only 1 of 2 verdicts"):
        summary([Verdict(1.0, 1.0), Verdict(None)], rows(0, 0), rows(0, 0))


def test_length_is_reported_where_there_are_texts():
    policy = [{**row, "completion": "long answer"} for row in rows(1.0, 0.0, 1.0)]
    baseline = [{**row, "completion": "short"} for row in rows(0.5, 0.5, 0.5)]
    told = win_rate(JUDGE, policy, baseline)
    assert told["length"]["longer_wins"] == pytest.approx(2 / 3)
    assert told["length"]["length_difference_mean"] == 6


def test_a_judge_without_a_field_takes_gold_where_there_is_gold():
    gold, learned = ScoreJudge(), ScoreJudge()
    win_rate(gold, rows(1.0, 0.0), rows(0.0, 0.0))
    assert gold.name == "gold_reward"
    plain = [{"prompt": row["prompt"], "reward": row["gold_reward"]} for row in rows(1.0, 0.0)]
    assert win_rate(learned, plain, plain)["win_rate"] == 0.5 and learned.name == "reward"
