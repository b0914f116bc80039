"""UltraFeedback in its three forms."""

import pytest

from rlhf_trl_ext.data.schema import BadRow, NoRow
from rlhf_trl_ext.data.ultrafeedback import UltraFeedback

PROMPT = [{"role": "user", "content": "2 + 2?"}]
FOUR, FIVE = [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}]
SCORES = {"score_chosen": 8.5, "score_rejected": 3.0}

TEXT = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "source_index": 7, "metadata": SCORES}
TRL_LIB = {"chosen": PROMPT + FOUR, "rejected": PROMPT + FIVE, **SCORES}
H4 = {"prompt": "2 + 2?", "prompt_id": "c0ffee", "messages": PROMPT + FOUR, **TRL_LIB}


@pytest.mark.parametrize("record", [TEXT, TRL_LIB, H4, {**TEXT, "metadata": None, **SCORES}])
def test_all_forms_give_the_same_rows(record):
    assert list(UltraFeedback().rows(record, "preferences")) == [{"prompt": PROMPT, "chosen": FOUR, "rejected": FIVE}]
    assert list(UltraFeedback().rows(record, "demonstrations")) == [{"prompt": PROMPT, "completion": FOUR}]
    assert list(UltraFeedback().rows(record, "prompts")) == [{"prompt": PROMPT}]


def test_a_system_turn_stays_in_the_prompt():
    system = [{"role": "system", "content": "Be brief."}]
    record = {"chosen": system + PROMPT + FOUR, "rejected": system + PROMPT + FIVE, **SCORES}
    assert next(UltraFeedback().rows(record, "prompts")) == {"prompt": system + PROMPT}


@pytest.mark.parametrize("record", [TEXT, TRL_LIB])
def test_a_tie_is_no_preference_but_a_demonstration_and_a_prompt(record):
    tie = {**record, "metadata": None, "score_chosen": 7, "score_rejected": 7.0}
    with pytest.raises(NoRow, match="score ties"):
        list(UltraFeedback().rows(tie, "preferences"))
    assert list(UltraFeedback().rows(tie, "demonstrations")) == [{"prompt": PROMPT, "completion": FOUR}]
    assert list(UltraFeedback().rows(tie, "prompts")) == [{"prompt": PROMPT}]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**TEXT, "prompt": None}, "missing field prompt"),
        ({**TEXT, "prompt": PROMPT}, "wrong type: prompt is list"),
        ({**TEXT, "chosen": ""}, "empty turn"),
        ({**TEXT, "rejected": "4 "}, "chosen == rejected"),
        ({**TEXT, "metadata": {"score_chosen": 1.0}}, "missing field score_rejected"),
        ({**TEXT, "metadata": None}, "missing field score_chosen"),
        ({**TEXT, "metadata": "8.5"}, "wrong type: str instead of an object"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": "8.5"}}, "wrong type: score_chosen is str"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": True}}, "wrong type: score_chosen is bool"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": float("nan")}}, "wrong type: score_chosen is not finite"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": 2}}, "score_chosen < score_rejected"),
        ({**TRL_LIB, "chosen": "4"}, "missing field prompt"),
        ({**H4, "chosen": "4"}, None),
        ({**TRL_LIB, "chosen": []}, "first turn is not the user's"),
        ({**TRL_LIB, "chosen": PROMPT}, "last turn is not the assistant's"),
        ({**TRL_LIB, "chosen": PROMPT + PROMPT + FOUR}, "two roles in a row"),
        ({**TRL_LIB, "chosen": [{"role": "user"}, *FOUR]}, "missing field content"),
        ({**TRL_LIB, "chosen": [{"role": "human", "content": "2 + 2?"}, *FOUR]}, "unknown role"),
        ({**TRL_LIB, "chosen": ["2 + 2?", "4"]}, "wrong type: str instead of an object"),
        (
            {**TRL_LIB, "rejected": [{"role": "user", "content": "3?"}, *FIVE]},
            "chosen and rejected have different prompts",
        ),
        ({**TRL_LIB, "rejected": None}, "missing field rejected"),
    ],
)
def test_malformed_records(record, reason):
    if reason is None:  # one reply as text and one as turns say the same, and are read
        assert next(UltraFeedback().rows(record, "preferences"))["chosen"] == FOUR
        return
    for view in ("demonstrations", "preferences", "prompts"):
        with pytest.raises(BadRow) as error:
            list(UltraFeedback().rows(record, view))
        assert error.value.reason == reason
