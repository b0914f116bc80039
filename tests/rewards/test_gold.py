"""The gold reward: parts worked out by hand."""

import pytest

from rlhf_trl_ext.rewards.gold import WEIGHTS, Facts, GoldReward, read_facts

PROMPT = "I am Mina. I lost my broken hammer in the garden."
BRIEF = PROMPT + " Keep it short."
GOOD = "Hello Mina, we will look for the hammer in the garden. Take good care!"


def score(prompt, completion):
    return GoldReward()([prompt], [completion])[0]


def parts(prompt, completion):
    return GoldReward().parts(prompt, completion)


def test_weights_sum_to_one():
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def test_facts_are_read_from_the_prompt():
    assert read_facts(PROMPT) == Facts("Mina", "hammer", "garden", brief=False)
    assert read_facts(BRIEF) == Facts("Mina", "hammer", "garden", brief=True)


@pytest.mark.parametrize("prompt", ["", "Mina lost a hammer.", "Mina lost a hammer and a lamp in the garden."])
def test_prompt_of_another_task_is_refused(prompt):
    with pytest.raises(ValueError, match="exactly one"):
        read_facts(prompt)


def test_a_perfect_reply_scores_one():
    # 14 words, greeting, name once, right item and place, one closing, all words known, no trigram twice
    assert score(PROMPT, GOOD) == pytest.approx(1.0)


def test_conversations_and_texts_score_alike():
    prompt, completion = [{"role": "user", "content": PROMPT}], [{"role": "assistant", "content": GOOD}]
    gold = GoldReward()
    assert gold([prompt], [completion], trainer_state=None) == gold([PROMPT], [GOOD])
    assert gold.parts(prompt, completion) == gold.parts(PROMPT, GOOD)
    assert gold.__name__ == "gold_reward"


def test_wrong_item_loses_half_the_answer():
    reply = GOOD.replace("hammer", "lamp")
    assert parts(PROMPT, reply)["answer"] == 0.5
    assert score(PROMPT, reply) == pytest.approx(1 - 0.40 * 0.5)


def test_a_second_place_does_not_hide_a_guess():
    reply = "Hello Mina, the hammer is in the garden in the office. Take good care!"
    assert parts(PROMPT, reply)["answer"] == 0.5


def test_address_is_one_over_the_times_the_name_is_said():
    assert parts(PROMPT, "Hello Mina, Mina, Mina.")["address"] == pytest.approx(1 / 3)
    assert parts(PROMPT, "Hello Paula and Mina.")["address"] == 0
    assert parts(PROMPT, "Hello.")["address"] == 0


def test_courtesy_without_a_wish():
    assert parts(PROMPT, "Hello.")["courtesy"] == 0.5  # greeting only
    assert parts(PROMPT, "Look in the garden. Take good care!")["courtesy"] == 0.5  # closing only
    # greeting .5 + closing .5 - one closing too many .25
    assert parts(PROMPT, "Hello, Take good care! Have a lovely day!")["courtesy"] == 0.75
    # the same closing three times counts three: 1 - 2 * .25
    assert parts(PROMPT, "Hello. Take good care! Take good care! Take good care!")["courtesy"] == 0.5
    assert parts(PROMPT, "The garden, hello.")["courtesy"] == 0  # a greeting counts at the start only


def test_courtesy_when_brevity_was_asked():
    assert parts(BRIEF, "Hello.")["courtesy"] == 1  # greeting only is all that is wanted
    assert parts(BRIEF, "Hello. Take good care!")["courtesy"] == 0.5  # 1 - .5
    assert parts(BRIEF, "Take good care!")["courtesy"] == 0  # max(0, -.5)


def test_length_window_depends_on_the_wish():
    # 10 words: one below 11-16, so 1 - 1/6; inside 6-10 when brevity was asked
    reply = "Hello Mina, we will look for the hammer there now."
    assert parts(PROMPT, reply)["length"] == pytest.approx(5 / 6)
    assert parts(BRIEF, reply)["length"] == 1
    # 14 words against 6-10: 1 - 4/6
    assert parts(BRIEF, GOOD)["length"] == pytest.approx(1 / 3)
    # 3 words: eight below 11, floor at 0
    assert parts(PROMPT, "Try the garden.")["length"] == 0


def test_a_reply_cut_off_has_no_length_score():
    assert parts(PROMPT, GOOD.rstrip("!"))["length"] == 0
    assert score(PROMPT, GOOD.rstrip("!")) == pytest.approx(0.8)  # 1 - .20


def test_repetition_is_the_share_of_repeated_trigrams():
    # "we will look we will look": trigrams wwl, wlw, lww, wwl -> 3 distinct of 4
    assert parts(PROMPT, "We will look we will look.")["repetition"] == pytest.approx(1 / 4)
    assert parts(PROMPT, "Hello Mina.")["repetition"] == 0  # no trigram


def test_repetition_scales_the_whole_reward():
    # 3 distinct trigrams of 4, 6 words are 5 below 11 -> length 1/6, nothing else is earned
    assert score(PROMPT, "We will look we will look.") == pytest.approx(0.20 * (1 / 6) * (3 / 4))


def test_wording_is_the_share_of_known_words():
    # "hamlamp" and "thegarden" are 2 of 5 pieces
    assert parts(PROMPT, "Hello Mina, the hamlamp thegarden.")["wording"] == pytest.approx(3 / 5)
    assert parts(PROMPT, "Hello Mina, \ufffd")["wording"] == pytest.approx(2 / 3)
    # "Mina,,," carries more than one mark
    assert parts(PROMPT, "Hello Mina,,, try.")["wording"] == pytest.approx(2 / 3)
    # the name's piece of a perfect reply misspelt: 13/14 known, and address lost (.15)
    assert score(PROMPT, GOOD.replace("Mina", "Minna")) == pytest.approx(0.85 * 13 / 14)


@pytest.mark.parametrize("completion", ["", " ", "...", "\n", "🎉", "the " * 200, GOOD * 20])
def test_gold_and_parts_stay_within_bounds(completion):
    for prompt in (PROMPT, BRIEF):
        assert 0 <= score(prompt, completion) <= 1
        assert all(0 <= value <= 1 for value in parts(prompt, completion).values())
    assert score(PROMPT, "") == 0


def test_wrong_number_of_completions_is_refused():
    with pytest.raises(ValueError):
        GoldReward()([PROMPT], [])
