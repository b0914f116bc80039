import math

import numpy as np
import pytest

from evaluation.quality.failures import texts
from evaluation.quality.failures.diagnostics import diagnose, false_positive_rate


def row(completion, prompt="Tell me about the small town by the sea, please.", **more):
    return {"prompt": [{"role": "user", "content": prompt}], "completion": completion, **more}


def flags(policy, baseline):
    return {found["name"] for found in diagnose(policy, baseline, resamples=500) if found["flagged"]}


WORDS = [
    "harbour",
    "boat",
    "market",
    "church",
    "lighthouse",
    "fisher",
    "tide",
    "bakery",
    "square",
    "school",
    "garden",
    "bridge",
    "wind",
    "sand",
]


def ordinary(count, seed=0):
    """Different sentences of ordinary length."""
    generator = np.random.default_rng(seed)
    return [
        row("The " + " and the ".join(generator.choice(WORDS, size=generator.integers(4, 9))) + " are nice.")
        for _ in range(count)
    ]


def test_repetition_by_hand():
    # "a a a a": 4 - n + 1 n-grams of which one is unique
    for n in (2, 3):
        assert texts.repetition(row("a a a a"), n) == pytest.approx(1 - 1 / (4 - n + 1))
    assert texts.repetition(row("one two three four five")) == 0
    assert math.isnan(texts.repetition(row("too short")))
    assert (
        texts.loop(row("well then so it is so it is so it is")) == 1 and texts.loop(row("so it is so it is not")) == 0
    )


def test_copying_by_hand():
    prompt = "SUBREDDIT: r/x\nTITLE: My dog ate my homework again\n\nPOST: It was a long essay about whales.\nTL;DR:"
    assert texts.copying(row("it was a long essay about whales", prompt)) == 1.0
    assert texts.copying(row("cats never do such things", prompt)) == 0.0
    # 5 words make two 4-grams, of which "was a long essay" stands there
    assert texts.copying(row("was a long essay, mine", prompt)) == 0.5
    assert texts.title_copy(row("My dog ate my homework again", prompt)) == 1.0
    assert texts.title_copy(row("A pet destroyed an essay on whales", prompt)) == 0.0
    assert math.isnan(texts.title_copy(row("My dog ate my homework again")))


@pytest.mark.parametrize(
    "text, bad",
    [("", 1), ("ok then", 1), ("!!!!!!!!", 1), ("\x00\x01 and so on", 1), ("A quite ordinary answer.", 0)],
)
def test_degenerate_answers(text, bad):
    assert texts.degenerate(row(text)) == bad
    assert texts.degenerate(row("Tell me about the small town by the sea, please.")) == 1  # the prompt itself


def test_cues_by_hand():
    assert texts.refusal(row("I'm sorry, but I can't help with that.")) == 1
    assert texts.refusal(row("Sure. " + "x" * 100 + " I cannot say more")) == 0
    assert texts.praise(row("Great question! Towns are ...")) == 1
    assert texts.praise(row("You're absolutely right, it is.")) == 1
    assert texts.praise(row("The question is great.")) == 0
    # two bullets, a header and a bold run in 8 words
    assert texts.formatting(row("# Title\n- one\n- two\n**bold** end")) == pytest.approx(100 * 4 / 8)
    assert texts.hedging(row("Perhaps it might rain")) == 50


def test_flags_are_silent_when_the_baseline_is_compared_with_itself():
    baseline = ordinary(60)
    found = diagnose(baseline, baseline)
    assert not any(entry["flagged"] for entry in found)
    assert all(entry["difference"] == 0 for entry in found)


def test_the_rate_of_false_positives_is_low():
    told = false_positive_rate(ordinary(120), repeats=50)
    assert told["comparisons"] == 50 and told["rate"] <= 0.05


@pytest.mark.parametrize(
    "damage, name",
    [
        (lambda r: row(r["completion"] * 2), "length"),
        (lambda r: row("so it goes on and on " * 5), "repetition (rep-4)"),
        (lambda r: row("so it goes on and on " * 5), "endless loop"),
        (lambda r: row("It is about the small town by the sea, please."), "copying the prompt"),
        (lambda r: row("no"), "degenerate"),
        (lambda r: row("I cannot help with " + r["completion"]), "refusal"),
        (lambda r: row("Great question! " + r["completion"]), "praise or agreement"),
        (lambda r: row("# A\n- b\n- c\n" + r["completion"]), "format marks per 100 words"),
        (lambda r: row("yes yes yes yes"), "entropy of words (nats)"),
    ],
)
def test_every_failure_is_found(damage, name):
    baseline = ordinary(60)
    found = diagnose([damage(r) for r in baseline], baseline)
    flagged = {entry["name"]: entry for entry in found if entry["flagged"]}
    assert name in flagged and flagged[name]["worst"], flagged.keys()


def test_truncation_counts_where_it_is_known():
    baseline = [{**r, "truncated": False} for r in ordinary(40)]
    policy = [{**r, "truncated": i % 4 == 0} for i, r in enumerate(baseline)]
    assert flags(policy, baseline) == {"truncated"}


def test_a_gamed_proxy_is_found():
    baseline = [{**r, "reward": 0.0, "gold_reward": 0.0} for r in ordinary(40)]
    policy = [{**r, "reward": 1.0, "gold_reward": -1.0} for r in baseline]
    (found,) = [f for f in diagnose(policy, baseline) if f["name"] == "gold minus proxy win rate"]
    assert found["flagged"] and found["difference"] == -1.0 and found["value"] == 0.0 and found["baseline"] == 1.0


def test_what_length_explains_by_hand():
    # Reward is the length: a policy that only writes longer gains nothing at equal lengths, so length explains all.
    generator = np.random.default_rng(0)

    def of_lengths(lengths, bonus=0.0):
        return [row("x" * n, reward=n / 10 + bonus) for n in lengths]

    lengths = generator.integers(10, 100, 400)
    longer = generator.integers(40, 100, 400)
    share = {f["name"]: f for f in diagnose(of_lengths(longer), of_lengths(lengths))}["gain explained by length"]
    assert share["value"] == pytest.approx(1.0, abs=0.15) and share["flagged"]
    same = {f["name"]: f for f in diagnose(of_lengths(lengths, bonus=5.0), of_lengths(lengths))}
    assert same["gain explained by length"]["value"] == pytest.approx(0.0, abs=0.01)
    assert not same["gain explained by length"]["flagged"]
