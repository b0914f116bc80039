"""Reddit TL;DR in its three forms."""

import pytest

from rlhf_trl_ext.data.schema import BadRow, NoRow
from rlhf_trl_ext.data.tldr import TLDR

POST = "SUBREDDIT: r/tifu\n\nTITLE: Cake\n\nPOST: I dropped it.\n\nTL;DR:"
PROMPT = [{"role": "user", "content": POST}]
DROPPED = [{"role": "assistant", "content": "Dropped cake."}]
FELL = [{"role": "assistant", "content": "It fell."}]

UNJUDGED = {"id": 3, "query": POST, "reference": "  Dropped cake.", "response": " It fell."}
JUDGED = {**UNJUDGED, "preferred": "reference", "judge_explanation": "shorter", "shuffled_index": 1}
COMPLETION = {"prompt": POST, "completion": " Dropped cake."}
COMPARISON = {"prompt": POST, "chosen": " It fell.", "rejected": " Dropped cake."}


@pytest.mark.parametrize(
    ("record", "view", "row"),
    [
        (UNJUDGED, "demonstrations", {"prompt": PROMPT, "completion": DROPPED}),
        (JUDGED, "demonstrations", {"prompt": PROMPT, "completion": DROPPED}),
        (COMPLETION, "demonstrations", {"prompt": PROMPT, "completion": DROPPED}),
        (JUDGED, "preferences", {"prompt": PROMPT, "chosen": DROPPED, "rejected": FELL}),
        ({**JUDGED, "preferred": "ours"}, "preferences", {"prompt": PROMPT, "chosen": FELL, "rejected": DROPPED}),
        (COMPARISON, "preferences", {"prompt": PROMPT, "chosen": FELL, "rejected": DROPPED}),
        (UNJUDGED, "prompts", {"prompt": PROMPT}),
        (COMPLETION, "prompts", {"prompt": PROMPT}),
        (COMPARISON, "prompts", {"prompt": PROMPT}),
    ],
)
def test_views(record, view, row):
    assert list(TLDR().rows(record, view)) == [row]


@pytest.mark.parametrize(
    ("record", "view", "reason"),
    [
        (UNJUDGED, "preferences", "posts without comparison"),
        ({**UNJUDGED, "preferred": None}, "preferences", "posts without comparison"),
        (COMPLETION, "preferences", "posts without comparison"),
        (COMPARISON, "demonstrations", "comparisons without reference"),
    ],
)
def test_absent_is_not_bad(record, view, reason):
    with pytest.raises(NoRow, match=reason):
        list(TLDR().rows(record, view))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"title": "Cake"}, "missing field prompt"),
        ({"prompt": POST}, "missing field chosen"),
        ({**COMPLETION, "prompt": 1}, "wrong type: prompt is int"),
        ({**COMPLETION, "completion": ["Dropped cake."]}, "wrong type: completion is list"),
        ({**COMPLETION, "completion": " "}, "empty turn"),
        ({**COMPARISON, "rejected": "It fell."}, "chosen == rejected"),
        ({**COMPARISON, "rejected": None}, "missing field rejected"),
        ({**UNJUDGED, "reference": None}, "missing field reference"),
        ({**JUDGED, "response": None}, "missing field response"),
        ({**JUDGED, "preferred": "A"}, "preferred is neither ours nor reference"),
        ({**JUDGED, "response": "Dropped cake."}, "chosen == rejected"),
    ],
)
@pytest.mark.parametrize("view", ["demonstrations", "preferences", "prompts"])
def test_malformed_records(record, reason, view):
    with pytest.raises(BadRow) as error:
        list(TLDR().rows(record, view))
    assert error.value.reason == reason
