"""Corpus: bad records are counted and located, absent rows are not bad, and refusals say what to do."""

import itertools
import json
import logging

import pytest

from rlhf_trl_ext.data.corpus import Corpus
from rlhf_trl_ext.data.forms import Forms
from rlhf_trl_ext.data.hh import HH

VIEWS = ("demonstrations", "preferences", "prompts")
ONLY = {"demonstrations": {"sft": 1}, "preferences": {"reward": 1}, "prompts": {"rl": 1}}
SCORES = {"score_chosen": 2.0, "score_rejected": 1.0}

SHARES = {"sft": 0.3, "reward": 0.3, "rl": 0.3, "evaluation": 0.1}


def record(number, **fields):
    return {"prompt": f"prompt {number}", "chosen": "good", "rejected": "bad", **SCORES, **fields}


def corpus(folder, lines, **options):
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in text))
    return Corpus(Forms("preference"), hub="unused", path=str(folder / "rows.jsonl"), **({"shares": SHARES} | options))


BAD = [  # lines 2, 4, 6, ... of the file below
    ({"prompt": "a", "chosen": "b", **SCORES}, "missing field rejected"),
    (record(1, chosen=5), "wrong type: assistant is int"),
    (record(1, chosen=" "), "empty turn"),
    (record(1, chosen="bad "), "chosen == rejected"),
    ('{"prompt": "a", ', "broken JSON line"),
    ("[1, 2]", "wrong type: list instead of an object"),
    (record(1, chosen=[{"role": "user", "content": "a"}] * 2), "the conversation does not hold the prompt beside it"),
    (record(1, score_chosen=0), "score_chosen < score_rejected"),
]


@pytest.mark.parametrize("view", VIEWS)
def test_bad_records_are_left_out_and_told_with_reason_file_and_line(tmp_path, caplog, view):
    lines = list(itertools.chain.from_iterable((record(i), bad) for i, (bad, _) in enumerate(BAD)))
    data = corpus(tmp_path, lines, shares=ONLY[view], max_bad_fraction=0.5)
    assert len(data.load(view)) == 8
    (message,) = caplog.messages
    assert caplog.records[0].levelno == logging.WARNING
    for number, (_, reason) in enumerate(BAD):
        assert f"{reason} 1 [rows.jsonl:{2 * number + 2}]" in message
    assert f"path={data.path} form=preference view={view} split=train (the " in message
    assert "100% of the prompts): 8 rows from 16 records (8 bad: " in message


def test_of_many_bad_records_the_first_three_are_located(tmp_path):
    lines = [record(0), *["{"] * 5, record(1, chosen="")]
    with pytest.raises(ValueError) as error:
        corpus(tmp_path, lines).load("prompts")
    assert str(error.value) == (
        f"max_bad_fraction=0.01 is exceeded by path={tmp_path}/rows.jsonl: 6 of 7 records are bad: "
        "broken JSON line 5 [rows.jsonl:2, rows.jsonl:3, rows.jsonl:4, ...], empty turn 1 [rows.jsonl:7]; mend them, "
        "choose the dataset=... that reads this format, or raise dataset.max_bad_fraction."
    )


def test_the_allowed_fraction_is_inclusive(tmp_path):
    lines = ["{", *(record(number) for number in range(99))]
    assert corpus(tmp_path, lines).load("prompts")
    with pytest.raises(ValueError, match="1 of 99 records are bad"):
        corpus(tmp_path, lines[:-1]).load("prompts")
    with pytest.raises(ValueError, match=r"max_bad_fraction=0 is exceeded"):
        corpus(tmp_path, lines, max_bad_fraction=0).load("prompts")


def test_absent_rows_are_counted_but_not_bad(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    ties = [record(number, score_chosen=1) for number in range(9)]
    data = corpus(tmp_path, [record(10), *ties], shares=ONLY["preferences"], max_bad_fraction=0)
    assert data.load("preferences")[0]["prompt"][0]["content"] == "prompt 10"
    assert caplog.messages[0].endswith("1 rows from 10 records (9 score ties)")
    assert caplog.records[0].levelno == logging.INFO


def test_an_empty_result_says_why(tmp_path):
    lines = [record(1), record(2, score_chosen=1), "{"]
    data = corpus(tmp_path, lines, shares={"sft": 1}, max_bad_fraction=1)
    with pytest.raises(ValueError) as error:
        data.load("preferences")
    assert str(error.value) == (
        f"path={tmp_path}/rows.jsonl form=preference view=preferences split=train (the reward share, 0% of the "
        "prompts): 0 rows from 3 records (1 bad: broken JSON line 1 [rows.jsonl:3]; 1 score ties; 1 rows "
        "of other splits): nothing to train on; mend or add data, or change the shares and token limits."
    )
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(ValueError, match=r"0 rows from 0 records \(nothing left out\): nothing to train on"):
        Corpus(Forms("preference"), hub="unused", shares=SHARES, path=str(tmp_path / "none.jsonl")).load("prompts")


def test_bad_rows_of_the_hub_are_located(monkeypatch):
    from datasets import Dataset

    rows = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": None}]
    monkeypatch.setattr("datasets.load_dataset", lambda hub, split, revision: Dataset.from_list(rows))
    with pytest.raises(ValueError, match=r"hub=some/data: 1 of 1 .*missing field rejected 1 \[some/data/test:1\]"):
        Corpus(HH(), hub="some/data", hub_split="test").load("prompts")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_samples": 0}, "max_samples=0 is not allowed: give a whole number >= 1"),
        ({"max_tokens": "many"}, "max_tokens=many is not allowed"),
        ({"max_prompt_tokens": 1.5}, "max_prompt_tokens=1.5 is not allowed"),
        ({"max_bad_fraction": 2}, r"max_bad_fraction=2 is not allowed: give a number in \[0, 1\]"),
        ({"shares": {"sft": 0.5}}, "sum to 0.5"),
        (
            {"hub": {"prompts": "some/data"}},
            "does not name one data set for each of demonstrations, preferences, prompts",
        ),
        ({"path": "nowhere"}, "path=nowhere does not exist"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        Corpus(HH(), **({"hub": "some/data"} | options))


def test_views_and_splits_that_are_unknown():
    with pytest.raises(ValueError, match="view=pairs is unknown: choose one of demonstrations, preferences, prompts"):
        Corpus(HH(), hub="some/data").load("pairs")
    with pytest.raises(ValueError, match="split=test is unknown: choose one of train, evaluation"):
        Corpus(HH(), hub="some/data").load("prompts", "test")


TURN = {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}
ANOTHER_FORM = [
    ({"conversations": TURN}, "demonstrations", "these rows have the form sharegpt: give dataset=file, which reads it"),
    (
        {"conversations": TURN},
        "preferences",
        "but it has no preferences, only demonstrations, prompts: choose an algor",
    ),
    ({"prompt": "Where?", "label": True, "completion": "Here."}, "prompts", "form unpaired: give dataset=file"),
    ({"rows": 1}, "prompts", "mend them, choose the dataset=... that reads this format, or raise"),
    ("[1]", "prompts", "mend them, choose the dataset=... that reads this format, or raise"),
]


@pytest.mark.parametrize(("row", "view", "expected"), ANOTHER_FORM)
def test_rows_of_another_form_are_named_with_what_reads_them(tmp_path, row, view, expected):
    text = row if isinstance(row, str) else json.dumps(row)
    (tmp_path / "rows.jsonl").write_text(f"{text}\n" * 20)
    with pytest.raises(ValueError, match="20 of 20 records are bad") as error:
        Corpus(HH(), path=str(tmp_path / "rows.jsonl")).load(view)
    assert expected in str(error.value) and str(error.value).endswith("or raise dataset.max_bad_fraction.")


def test_rows_of_another_form_than_the_one_that_is_read(tmp_path):
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    with pytest.raises(ValueError, match=r"20 of 20 records are bad: missing field chosen.*have the form messages"):
        corpus(tmp_path, [{"messages": turns}] * 20).load("preferences")
