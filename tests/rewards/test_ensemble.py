import json

import pytest

from rlhf_trl_ext.rewards.ensemble import RewardEnsemble


def member(factor, noise=0.0):
    """A reward model of its own scale: `factor * length`, with a disagreement about texts that contain an x."""
    return lambda prompts, completions, **_: [
        factor * len(c[0]["content"]) + noise * ("x" in c[0]["content"]) for c in completions
    ]


def chat(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "samples.jsonl"
    texts = ("a", "bb", "ccc")  # lengths 1, 2, 3: mean 2, standard deviation 1
    path.write_text("".join(json.dumps({"prompt": chat("?"), "completion": text}) + "\n" for text in texts))
    return str(path)


@pytest.mark.parametrize("mode", ["mean", "worst", "uncertainty"])
def test_members_of_any_scale_count_alike(reference, mode):
    # Both members standardise to (length - 2) / 1 and agree: "dddd" is 2 standard deviations above the reference.
    ensemble = RewardEnsemble([member(1), member(100)], reference, mode)
    assert ensemble([chat("?")], [chat("dddd")]) == pytest.approx([2.0])


def test_disagreement_lowers_the_careful_rewards_and_is_logged(reference):
    # On "xx" the members say 0 and 3: mean 1.5, minimum 0, variance 2.25, standard deviation 1.5.
    expected = {"mean": 1.5, "worst": 0.0, "uncertainty": 1.5 - 0.1 * 2.25}
    for mode, value in expected.items():
        logged = {}
        ensemble = RewardEnsemble([member(1), member(1, noise=3)], reference, mode, weight=0.1)
        found = ensemble([chat("?")] * 2, [chat("xx"), chat("bb")], log_metric=logged.__setitem__)
        assert found == pytest.approx([value, 0.0]), mode
        assert logged["ensemble/std"] == pytest.approx(0.75)  # the mean over both completions


def test_a_member_without_an_answer_makes_the_reward_not_a_number(reference):
    silent = [[1.0, 2.0, 3.0], [None]]
    ensemble = RewardEnsemble([lambda **_: silent.pop(0), member(1)], reference)
    (found,) = ensemble([chat("?")], [chat("bb")])
    assert found != found


def test_refusals(reference, tmp_path):
    with pytest.raises(ValueError, match="mode=median"):
        RewardEnsemble([member(1)], reference, "median")
    with pytest.raises(ValueError, match="0 members"):
        RewardEnsemble([], reference)
    with pytest.raises(ValueError, match="no such file"):
        RewardEnsemble([member(1)], str(tmp_path / "absent.jsonl"))
