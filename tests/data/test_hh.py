"""Anthropic HH transcripts to rows."""

import pytest

from rlhf_trl_ext.data.hh import HH
from rlhf_trl_ext.data.schema import BadRow

OPENING = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Name a colour."


def only(record, view):
    rows = list(HH().rows(record, view))
    assert len(rows) == 1
    return rows[0]


def test_views_of_a_conversation_with_a_shared_prefix():
    record = {"chosen": f"{OPENING}\n\nAssistant: Blue.", "rejected": f"{OPENING}\n\nAssistant: No."}
    prompt = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Name a colour."},
    ]
    blue, no = [{"role": "assistant", "content": "Blue."}], [{"role": "assistant", "content": "No."}]
    assert only(record, "preferences") == {"prompt": prompt, "chosen": blue, "rejected": no}
    assert only(record, "demonstrations") == {"prompt": prompt, "completion": blue}
    assert only(record, "prompts") == {"prompt": prompt}


def test_only_a_mark_after_an_empty_line_begins_a_turn():
    text = "Human: I am not.\nAssistant: nor I.\n\nHumans: many.\n\nHuman:resources"
    record = {
        "chosen": f"\n\nHuman: Who are you?\n\nAssistant: {text}",
        "rejected": "Human: Who are you?\n\nAssistant: A",
    }
    row = only(record, "preferences")
    assert row["prompt"] == [{"role": "user", "content": "Who are you?"}]
    assert row["chosen"] == [{"role": "assistant", "content": text}]


GOOD = f"{OPENING}\n\nAssistant: Blue."


@pytest.mark.parametrize("view", ["demonstrations", "preferences", "prompts"])
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"rejected": GOOD}, "missing field chosen"),
        ({"chosen": GOOD}, "missing field rejected"),
        ({"chosen": GOOD, "rejected": None}, "missing field rejected"),
        ({"chosen": GOOD, "rejected": ["No."]}, "wrong type: rejected is list"),
        ({"chosen": 7, "rejected": GOOD}, "wrong type: chosen is int"),
        ({"chosen": GOOD, "rejected": f"{OPENING}\n\nAssistant: "}, "empty turn"),
        ({"chosen": GOOD, "rejected": f"{OPENING}\n\nAssistant:"}, "empty turn"),
        ({"chosen": "  ", "rejected": GOOD}, "empty turn"),
        ({"chosen": f"{GOOD}\n\nAssistant: Or red.", "rejected": GOOD}, "two roles in a row"),
        ({"chosen": GOOD, "rejected": f"{OPENING}\n\nHuman: Please.\n\nAssistant: No."}, "two roles in a row"),
        ({"chosen": GOOD, "rejected": f"{GOOD}\n\nHuman: Another?"}, "last turn is not the assistant's"),
        ({"chosen": "\n\nAssistant: Blue.", "rejected": GOOD}, "first turn is not the user's"),
        ({"chosen": f"Well.{GOOD}", "rejected": GOOD}, "text before the first turn"),
        ({"chosen": "Blue.", "rejected": GOOD}, "text before the first turn"),
        ({"chosen": GOOD, "rejected": "\n\nHuman: Hi\n\nAssistant: No."}, "chosen and rejected have different prompts"),
        (
            {"chosen": GOOD, "rejected": GOOD.replace("Hello", "Hey") + "?"},
            "chosen and rejected have different prompts",
        ),
        ({"chosen": GOOD, "rejected": f"{GOOD} "}, "chosen == rejected"),
        ({"chosen": GOOD, "rejected": f"{GOOD}\ud800"}, "invalid Unicode in rejected"),
    ],
)
def test_malformed_records_are_bad_in_every_view(record, reason, view):
    with pytest.raises(BadRow) as error:
        list(HH().rows(record, view))
    assert error.value.reason == reason
