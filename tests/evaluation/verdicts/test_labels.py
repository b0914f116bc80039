import json

import pytest

from evaluation.verdicts.agreement import read_labels

ROW = {"policy": "dpo", "pair": 1, "outcome": 1}
WRONG = [
    ([ROW, {**ROW, "outcome": 0}], "two outcomes, 1 and 0"),
    ([{**ROW, "pair": 0.7}], "pair=0.7"),
    ([{**ROW, "pair": "1"}], "pair=1"),
    ([{**ROW, "outcome": True}], "outcome=True"),
    ([{**ROW, "outcome": float("nan")}], "outcome=nan"),
    ([], "holds no label"),
]


@pytest.mark.parametrize(("rows", "told"), WRONG)
def test_labels_that_are_none_or_contradict_each_other_are_refused(rows, told, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=told):
        read_labels(path, [("dpo", "sft")], 3)


def test_a_label_that_stands_twice_is_one(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(2 * (json.dumps(ROW) + "\n"))
    assert [v.outcome for v in read_labels(path, [("dpo", "sft")], 3)["dpo", "sft"]] == [None, 1.0, None]
