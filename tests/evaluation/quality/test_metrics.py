import math

import numpy as np
import pytest

from evaluation.quality.metrics import distinct, entropy, reward_quality, rouge, self_bleu, text_metrics
from rlhf_trl_ext.judging.verdicts import Verdict


def test_diversity_by_hand():
    texts = [["a", "b", "a", "b"], ["a", "b", "c"]]
    assert distinct(texts, 1) == pytest.approx(3 / 7)  # a b c of seven words
    assert distinct(texts, 2) == pytest.approx(3 / 5)  # ab ba bc of ab ba ab ab bc
    assert distinct([["a"]], 2) is None
    assert entropy([["a", "a"], ["b", "b"]]) == pytest.approx(math.log(2)) and entropy([[]]) == 0


def test_self_bleu_by_hand():
    same = ["one", "two", "three", "four", "five"]
    assert self_bleu([same, same, same]) == pytest.approx(1.0)
    assert self_bleu([same, ["six", "seven", "eight", "nine", "ten"]]) == 0.0
    # "one two three four six": precisions 4/5, 3/4, 2/3, 1/2 both ways, equal lengths
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert self_bleu([same, ["one", "two", "three", "four", "six"]]) == pytest.approx(expected)
    # a shorter text: all of its n-grams match, brevity penalty exp(1 - 5/4); the longer: 4/5, 3/4, 2/3, 1/2
    assert self_bleu([same, same[:4]]) == pytest.approx((math.exp(1 - 5 / 4) + expected) / 2)
    # repeated words are clipped at the other text's count: "a a a a" against "a b c d" matches one of four, no bigram
    assert self_bleu([["a"] * 4, ["a", "b", "c", "d"]]) == 0.0
    assert self_bleu([same]) is None


def test_rouge_by_hand():
    # words: 2 of 3 and 2 of 4 in common -> F1 = 2 * (2/3) * (2/4) / (2/3 + 2/4) = 4/7; no common bigram
    rows = [{"completion": "dog ate cake", "demonstration": "cake and dog again"}]
    told = rouge(rows)
    assert told["rouge1"] == pytest.approx(4 / 7) and told["rouge2"] == 0
    assert told["rougeL"] == pytest.approx(2 / 7)  # one word in order: 1/3 and 1/4
    assert rouge([{"completion": "dog"}]) == {}


def test_means_have_intervals_where_there_are_values():
    rows = [{"completion": "a b c d e", "kl": float(i % 2)} for i in range(100)]
    told = text_metrics(rows)
    # 0.5 +- 1.96 * 0.5 / 10
    assert told["kl_ci"] == pytest.approx([0.402, 0.598], abs=0.02)
    assert "reward_ci" not in told and told["characters_mean"] == 9 and told["self_bleu"] == pytest.approx(1.0)


def test_reward_quality_by_hand():
    # margins log 4: sigmoid 0.8; the judge agrees in 3 of 4 decided pairs: accuracy 3/4, ECE |0.8 - 0.75|
    policy = [{"reward": math.log(4), "completion": "x" * 4} for _ in range(5)]
    baseline = [{"reward": 0.0, "completion": "x"} for _ in range(5)]
    verdicts = [Verdict(1.0), Verdict(1.0), Verdict(1.0), Verdict(0.0), Verdict(0.5)]
    told = reward_quality(verdicts, policy, baseline)
    assert (told["pairs"], told["accuracy"]) == (4, 0.75)
    assert told["ece"] == pytest.approx(0.05) and told["length_correlation"] == pytest.approx(1.0)
    assert reward_quality(verdicts, [{"completion": ""}] * 5, baseline) is None


def test_a_calibrated_reward_has_no_calibration_error():
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 2, 20_000)
    won = generator.random(20_000) < 1 / (1 + np.exp(-margins))
    policy = [{"reward": m, "completion": "x"} for m in margins]
    told = reward_quality([Verdict(float(w)) for w in won], policy, [{"reward": 0.0, "completion": "x"}] * 20_000)
    assert told["ece"] < 0.015
    few = reward_quality([Verdict(float(w)) for w in won[:50]], policy[:50], [{"reward": 0.0, "completion": "x"}] * 50)
    mean, low, high = few["ece_calibrated"]
    assert mean > 0.08 and low < few["ece"] < high  # at 50 pairs a perfect reward has far more than 0
    twice = [{"reward": 3 * m, "completion": "x"} for m in margins]
    sure = reward_quality([Verdict(float(w)) for w in won], twice, [{"reward": 0.0, "completion": "x"}] * 20_000)
    assert sure["ece"] > 0.05 > sure["ece_calibrated"][2] and sure["accuracy"] == told["accuracy"]
