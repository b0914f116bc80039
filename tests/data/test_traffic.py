import math

import pytest

from rlhf_trl_ext.data.traffic import TrafficData
from rlhf_trl_ext.serving.feedback import Feedback
from rlhf_trl_ext.serving.traffic import Traffic


@pytest.fixture
def recorded(tmp_path):
    """Answers a and b to one prompt, c to another, one that is not whole and one that is no chat; and feedback."""
    store = Traffic(tmp_path / "t.sqlite")

    def answer(name, words, **others):
        turns = [{"role": "user", "content": words}]
        row = {"id": name, "time": 1.0, "policy": "p", "prompt": turns, "completion": f"reply {name}"}
        store.record({**row, "status": "complete", **others}).result(5)

    answer("a", "one"), answer("b", "one"), answer("c", "two"), answer("d", "three", status="cancelled")
    answer("e", "x", prompt="no chat"), answer("f", "two", policy="q")

    def say(*feedback):
        for each in feedback:
            store.feedback(Feedback(*each)).result(5)
        return TrafficData(str(tmp_path / "t.sqlite"), evaluation=1e-9)

    yield say
    store.close()


def plain(rows):
    return [(*(row[name][0]["content"] for name in ("prompt", "chosen", "rejected")), row["p_chosen"]) for row in rows]


def test_comparisons_become_preferences_by_the_share_of_people(recorded):
    data = recorded(*(("a", "preferred_over", "b", name) for name in "xyz"), ("b", "preferred_over", "a", "w"))
    assert plain(data.load("preferences")) == [("one", "reply a", "reply b", 0.75)]


def test_as_many_for_as_against_and_answers_to_other_prompts_make_no_preference(recorded):
    votes = [("a", "preferred_over", "b", "x"), ("b", "preferred_over", "a", "y"), ("a", "preferred_over", "c", "x")]
    data = recorded(*votes)
    with pytest.raises(ValueError, match="has no preferences for split=train: collect more feedback"):
        data.load("preferences")


def test_edits_are_preferred_and_demonstrate(recorded):
    data = recorded(("c", "edit", "better", "x"))
    assert plain(data.load("preferences")) == [("two", "better", "reply c", 1.0)]
    (row,) = data.load("demonstrations")
    assert row["completion"] == [{"role": "assistant", "content": "better"}]


def test_ratings_become_soft_labels_and_kto_rows(recorded):
    stars = [("a", "rating", 1, "x"), ("a", "rating", 5, "x"), ("b", "rating", 2, "x")]
    data = recorded(*stars, ("c", "thumb", "down", "y"))
    (row,) = plain(data.load("preferences"))
    assert row[:3] == ("one", "reply a", "reply b")
    assert row[3] == pytest.approx(1 / (1 + math.exp(-3)))  # the last word counts: 5 stars against 2
    labels = {row["completion"][0]["content"]: row["label"] for row in data.load("unpaired")}
    assert labels == {"reply a": True, "reply b": False, "reply c": False}


def test_prompts_are_those_of_whole_chats_of_the_chosen_policies(recorded, caplog):
    caplog.set_level("INFO")
    data = recorded()
    assert [row["prompt"][0]["content"] for row in data.load("prompts")] == ["one", "two"]
    assert "1 left out: not whole, 1 left out: no chat" in caplog.text
    (row,) = TrafficData(data.path, ["q"], evaluation=1e-9).load("prompts")
    assert row["prompt"][0]["content"] == "two"


def test_what_is_written_is_in_the_file_itself_by_which_a_stage_is_known(recorded, tmp_path):
    recorded()
    before = (tmp_path / "t.sqlite").read_bytes()
    recorded()
    assert (tmp_path / "t.sqlite").read_bytes() == before  # or a pipeline's stages would not find what it looked at
    recorded(("c", "thumb", "up", "x"))
    assert (tmp_path / "t.sqlite").read_bytes() != before
    with pytest.raises(ValueError, match="no such file"):
        TrafficData(str(tmp_path / "absent.sqlite"))
