"""OpenAssistant trees to rows."""

import pytest

from rlhf_trl_ext.data.oasst import OASST
from rlhf_trl_ext.data.schema import BadRow, NoRow


def prompter(text, *replies, **fields):
    return {"role": "prompter", "text": text, "lang": "en", "replies": list(replies), **fields}


def assistant(text, *replies, **fields):
    return {"role": "assistant", "text": text, "lang": "en", "replies": list(replies), **fields}


def tree(root, **fields):
    return {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": root, **fields}


def texts(record, view, lang=None):
    """Rows as tuples of the turns' text, prompt first, so that the expected values below are short."""
    rows = OASST(lang).rows(record, view)
    return [tuple(" > ".join(turn["content"] for turn in turns) for turns in row.values()) for row in rows]


TALK = tree(
    prompter(
        "q",
        assistant("middling", rank=1),
        assistant(
            "best",
            prompter("thanks"),
            prompter("more?", assistant("yes", rank=None), assistant("no", rank=None)),
            rank=0,
        ),
        assistant("worst", prompter("why?", assistant("because")), rank=2),
        assistant("unranked"),
    )
)


def test_preferences_set_the_best_reply_against_each_worse_one():
    # Four replies, three ranked: best > middling, best > worst. "more?" has two unranked replies: no pair.
    assert texts(TALK, "preferences") == [("q", "best", "middling"), ("q", "best", "worst")]


def test_prompts_are_every_message_of_the_prompter_with_the_turns_above():
    prompts = {("q",), ("q > best > thanks",), ("q > best > more?",), ("q > worst > why?",)}
    assert len(texts(TALK, "prompts")) == 4
    assert set(texts(TALK, "prompts")) == prompts


def test_roles_become_those_of_trl():
    (row, _) = OASST().rows(TALK, "preferences")
    assert row == {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "best"}],
        "rejected": [{"role": "assistant", "content": "middling"}],
    }


def test_demonstrations_follow_the_best_path():
    # Unranked follow-ups: the first, "thanks", which nobody answered.
    assert texts(TALK, "demonstrations") == [("q", "best")]
    # A ranked follow-up wins over an earlier one; an only reply needs no rank; then two unranked replies end the path.
    asked = prompter("b?", assistant("b!", prompter("c?", assistant("c1"), assistant("c2"))), rank=0)
    deep = tree(prompter("q", assistant("worse", rank=1), assistant("a", prompter("x", rank=1), asked, rank=0)))
    assert texts(deep, "demonstrations") == [("q", "a"), ("q > a > b?", "b!")]


def test_passed_over_messages_take_what_is_below_them_along():
    dead = {
        "deleted": assistant("best", prompter("gone"), rank=0, deleted=True),
        "rejected in review": assistant("best", prompter("gone"), rank=0, review_result=False),
        "other language": assistant("beste", prompter("weg"), rank=0, lang="de"),
        "deleted and blank": assistant("", rank=0, deleted=True),
    }
    for why, message in dead.items():
        record = tree(prompter("q", message, assistant("second", rank=1), assistant("third", rank=2)))
        assert texts(record, "preferences", lang="en") == [("q", "second", "third")], why
        assert texts(record, "demonstrations", lang="en") == [("q", "second")], why
        assert texts(record, "prompts", lang="en") == [("q",)], why


def test_a_message_not_yet_reviewed_counts():
    record = tree(prompter("q", assistant("a", review_result=None)))
    assert texts(record, "demonstrations") == [("q", "a")]


@pytest.mark.parametrize(
    ("record", "view", "reason"),
    [
        (tree(prompter("q", assistant("a"))), "preferences", "trees without preferences"),
        (
            tree(prompter("q", assistant("a", rank=0), assistant("b", rank=0))),
            "preferences",
            "trees without preferences",
        ),
        (tree(prompter("q")), "demonstrations", "trees without demonstrations"),
        (tree(prompter("q", lang="de")), "prompts", "trees deleted, rejected or in another language"),
        (tree(prompter("q", deleted=True)), "prompts", "trees deleted, rejected or in another language"),
        (tree(prompter("q"), tree_state="aborted_low_grade"), "prompts", "trees not ready for export"),
    ],
)
def test_absent_is_not_bad(record, view, reason):
    with pytest.raises(NoRow) as error:
        OASST("en").rows(record, view)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"tree_state": "ready_for_export"}, "missing field prompt"),
        (tree("q"), "wrong type: prompt is str"),
        (tree(assistant("a")), "first turn is not the user's"),
        (tree(prompter("q", prompter("again"))), "two roles in a row"),
        (tree(prompter("q", assistant("a", assistant("b")))), "two roles in a row"),
        (tree(prompter("q", assistant(" "))), "empty turn"),
        (tree(prompter("q", {"role": "assistant"})), "missing field lang"),
        (tree(prompter("q", {"role": "assistant", "lang": "en"})), "missing field text"),
        (tree(prompter("q", {"text": "a"})), "missing field role"),
        (tree(prompter("q", assistant("a", role="moderator"))), "unknown role"),
        (tree(prompter("q", "a")), "wrong type: str instead of an object"),
        (tree(prompter("q", assistant("a", rank="0"))), "wrong type: rank is str"),
        (tree(prompter("q", replies={"role": "assistant"})), "wrong type: replies is dict"),
    ],
)
@pytest.mark.parametrize("view", ["demonstrations", "preferences", "prompts"])
def test_malformed_trees(record, reason, view):
    with pytest.raises(BadRow) as error:
        OASST("en").rows(record, view)
    assert error.value.reason == reason


def test_equal_replies_with_different_ranks_are_bad_where_they_make_a_pair():
    record = tree(prompter("q", assistant("a", rank=0), assistant("a\n", rank=1)))
    with pytest.raises(BadRow, match="chosen == rejected"):
        OASST().rows(record, "preferences")
    assert texts(record, "demonstrations") == [("q", "a")]
