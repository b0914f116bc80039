import json

import pytest

from rlhf_trl_ext.data.embedded import Embedded
from rlhf_trl_ext.data.labelled import Labelled


def turns(content, role="assistant"):
    return [{"role": role, "content": content}]


def row(number, **changes):
    made = {"prompt": turns(f"question {number}", "user"), "chosen": turns("yes"), "rejected": turns("")}
    return {**made, "p_chosen": 0.5 + number / 100, "margin": number / 50, "evidence": {"status": "label"}, **changes}


def written(tmp_path, rows, name="labels.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(tmp_path)


def test_labels_come_with_their_probability_and_margins_only_where_wanted(tmp_path):
    path = written(tmp_path, [row(number) for number in range(40)])
    data = Labelled(path, rest=Embedded(evaluation=8))
    found = data.load("preferences")
    assert found.column_names == ["prompt", "chosen", "rejected", "p_chosen"]
    assert found["p_chosen"] == [0.5 + number / 100 for number in range(40)]
    # 2 (n / 50) for n = 7; p >= .6 keeps n = 10 to 39
    assert Labelled(path, margin_scale=2.0).load("preferences").column_names[-1] == "margin"
    assert Labelled(f"{path}/labels.jsonl", Embedded(), 2.0).load("preferences")["margin"][7] == pytest.approx(0.28)
    assert len(Labelled(path, Embedded(), least_p=0.6).load("preferences")) == 30
    # everything else is the rest's, whose gold reward it shows
    assert len(data.load("preferences", "evaluation")) == 8 and "p_chosen" not in data.load("prompts").column_names
    assert data.gold is data.rest.gold


def test_without_a_rest_prompts_are_held_out_by_their_hash(tmp_path):
    path = written(tmp_path, [row(number % 50, rejected=turns(f"no {number}")) for number in range(100)])
    data = Labelled(path, evaluation=0.3)
    parts = [data.load("preferences", split) for split in ("train", "evaluation")]
    prompts = [{r["prompt"][0]["content"] for r in part} for part in parts]
    assert len(parts[0]) + len(parts[1]) == 100 and not prompts[0] & prompts[1] and len(parts[1]) > 10
    assert data.load("demonstrations").column_names == ["prompt", "completion"]


def test_revisions_are_demonstrations(tmp_path):
    rows = [{"prompt": turns("q", "user"), "completion": f"better {n}", "evidence": {}} for n in range(3)]
    path = written(tmp_path, rows, "revisions.jsonl")
    data = Labelled(path, rest=Embedded(demonstrations=5))
    assert [r["completion"][0]["content"] for r in data.load("demonstrations")] == ["better 0", "better 1", "better 2"]


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"p_chosen": 0.4}, r"labels.jsonl:2: p_chosen is outside \[0.5, 1\]"),
        ({"p_chosen": None}, "missing field p_chosen"),
        ({"chosen": "yes"}, "wrong type: chosen is str"),
        ({"chosen": turns("yes", "user")}, "chosen is no assistant's turn"),
    ],
)
def test_a_malformed_row_is_named(changes, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        Labelled(written(tmp_path, [row(1), row(2, **changes)]), Embedded()).load("preferences")


def test_wrong_settings_are_told_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"path=nowhere does not exist: give the labels.jsonl"):
        Labelled("nowhere")
    with pytest.raises(ValueError, match=r"dataset.path has no value"):
        Labelled(rest=Embedded()).load("preferences")
    with pytest.raises(ValueError, match=r"least_p=0.4"):
        Labelled(least_p=0.4)
    with pytest.raises(ValueError, match=r"holds no labels\.jsonl"):
        Labelled(str(tmp_path), Embedded()).load("preferences")
    with pytest.raises(ValueError, match=r"has no preferences for split=train"):
        Labelled(written(tmp_path, [row(1)]), Embedded(), least_p=0.9).load("preferences")


def test_no_other_data_set_is_mixed_in_unless_asked_for(composed, tmp_path):
    from rlhf_trl_ext.configuration.checks import build

    path = written(tmp_path, [row(number) for number in range(40)])
    alone = build(composed("train", "dataset=labelled", f"dataset.path={path}").dataset, "dataset")
    views = [alone.load(view, split) for view in ("demonstrations", "prompts") for split in ("train", "evaluation")]
    own = {f"question {number}" for number in range(40)}
    assert all({r["prompt"][0]["content"] for r in view} <= own for view in views)
    overrides = ["dataset=labelled", "dataset@dataset.rest=embedded", f"dataset.path={path}"]
    assert isinstance(build(composed("train", *overrides).dataset, "dataset").rest, Embedded)
