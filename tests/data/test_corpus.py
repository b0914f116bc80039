"""Corpus: views, splits, de-duplication, filters and fingerprint, on small files."""

import itertools
import json
import logging
import random

import pytest

from rlhf_trl_ext.data.corpus import Corpus
from rlhf_trl_ext.data.forms import Forms
from rlhf_trl_ext.data.tldr import TLDR

VIEWS = ("demonstrations", "preferences", "prompts")
ONLY = {"demonstrations": {"sft": 1}, "preferences": {"reward": 1}, "prompts": {"rl": 1}}

SHARES = {"sft": 0.3, "reward": 0.3, "rl": 0.3, "evaluation": 0.1}


def record(number, words=2, **fields):
    chosen, rejected = " ".join(["good"] * words), "bad"
    return {"prompt": f"prompt {number}", "chosen": chosen, "rejected": rejected, "metadata": {}, **SCORES, **fields}


SCORES = {"score_chosen": 2.0, "score_rejected": 1.0}


def corpus(folder, records, name="rows.jsonl", **options):
    lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
    (folder / name).write_text("".join(line + "\n" for line in lines))
    return Corpus(Forms("preference"), hub="unused", **({"shares": SHARES} | {"path": str(folder / name)} | options))


def questions(dataset):
    return [row["prompt"][0]["content"] for row in dataset]


class Words:
    """A tokenizer of words; its template puts the role before every turn and opens the reply with one word."""

    chat_template = "words"

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        assert tokenize is False
        told = " ".join(f"{turn['role']} {turn['content']}" for turn in turns)
        return f"{told} assistant" if add_generation_prompt else told

    def __call__(self, text, add_special_tokens, verbose):
        assert add_special_tokens is False
        return {"input_ids": text.split()}


def test_columns_are_those_of_trl(tmp_path):
    from trl.data_utils import is_conversational

    columns = {
        "demonstrations": ["prompt", "completion"],
        "preferences": ["prompt", "chosen", "rejected"],
        "prompts": ["prompt"],
    }
    for view in VIEWS:
        dataset = corpus(tmp_path, [record(1)], shares=ONLY[view]).load(view)
        assert dataset.column_names == columns[view]
        assert is_conversational(dataset[0])
    assert corpus(tmp_path, [record(1)], shares=ONLY["preferences"]).load("preferences")[0] == {
        "prompt": [{"role": "user", "content": "prompt 1"}],
        "chosen": [{"role": "assistant", "content": "good good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_prompt_is_in_two_splits_and_the_order_of_rows_does_not_matter(tmp_path, seed):
    records = [record(number) for number in range(400)] + [record(f"{number} ") for number in range(0, 400, 7)]
    found = {}
    for shuffle in (None, 1, 2):
        if shuffle:
            random.Random(shuffle).shuffle(records)
        data = corpus(tmp_path, records, seed=seed)
        loaded = {view: questions(data.load(view)) for view in VIEWS}
        for view in VIEWS:
            loaded[f"evaluation {view}"] = questions(data.load(view, "evaluation"))
        assert found in ({}, loaded)
        found = loaded
    assert set(found["evaluation demonstrations"]) == set(found["evaluation preferences"])
    parts = [{" ".join(q.split()) for q in found[v]} for v in (*VIEWS, "evaluation prompts")]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(parts, 2))
    assert set().union(*parts) == {f"prompt {number}" for number in range(400)}
    assert min(map(len, parts)) > 20


def test_the_same_is_kept_once(tmp_path, caplog):
    rows = [record(1), record(1), record("1 "), record(1, rejected="worse"), record(2)]
    caplog.set_level(logging.INFO)
    assert len(corpus(tmp_path, rows, shares=ONLY["preferences"]).load("preferences")) == 4
    assert len(corpus(tmp_path, rows, shares=ONLY["demonstrations"]).load("demonstrations")) == 3
    assert len(corpus(tmp_path, rows, shares=ONLY["prompts"]).load("prompts")) == 2
    told = [message.split(": ", 1)[1] for message in caplog.messages]
    assert told == [
        "4 rows from 5 records (1 duplicate rows)",
        "3 rows from 5 records (2 duplicate rows)",
        "2 rows from 5 records (3 duplicate rows)",
    ]


def test_fewer_samples_are_a_subset_of_more(tmp_path, caplog):
    rows = [record(number) for number in range(60)]
    caplog.set_level(logging.INFO)
    every, ten, five = (
        questions(corpus(tmp_path, rows, shares=ONLY["prompts"], max_samples=n).load("prompts")) for n in (None, 10, 5)
    )
    assert (len(every), ten, five) == (60, every[:10], every[:5])
    assert every[:10] != [f"prompt {number}" for number in range(10)]
    assert caplog.messages[1].endswith("10 rows from 60 records (50 rows over max_samples)")


def test_token_limits(tmp_path, caplog):
    # In words: prompt "user prompt N" 3, with the opening 4; conversation with n words of chosen 3 + 1 + n, with the
    # rejected one 3 + 1 + 1. So max_tokens=6 keeps n = 1 and 2.
    rows = [record(words, words=words) for words in (1, 2, 3, 9)]
    caplog.set_level(logging.INFO)

    def kept(view, **options):
        return sorted(questions(corpus(tmp_path, rows, shares=ONLY[view], **options).load(view, tokenizer=Words())))

    assert kept("preferences", max_tokens=6) == ["prompt 1", "prompt 2"]
    assert caplog.messages[-1].endswith("2 rows from 4 records (2 rows too long)")
    assert kept("demonstrations", max_tokens=7) == ["prompt 1", "prompt 2", "prompt 3"]
    assert len(kept("prompts", max_tokens=4)) == len(kept("prompts", max_prompt_tokens=4)) == 4
    with pytest.raises(ValueError, match=r"0 rows from 4 records \(4 rows too long\): nothing to train on"):
        kept("prompts", max_prompt_tokens=3)
    # A rejected reply counts as well: 3 + 1 + 8 words.
    rows = [record(1, rejected=" ".join(["bad"] * 8)), record(2)]
    assert kept("preferences", max_tokens=11) == ["prompt 2"]
    assert len(kept("preferences", max_tokens=12)) == 2


def test_max_samples_counts_what_is_left_by_the_filters(tmp_path):
    rows = [record(number, words=1 + 8 * (number % 2)) for number in range(40)]  # every other one is too long
    data = corpus(tmp_path, rows, shares=ONLY["demonstrations"], max_tokens=6, max_samples=20)
    assert len(data.load("demonstrations", tokenizer=Words())) == 20


def test_token_limits_need_a_tokenizer_with_a_template(tmp_path):
    bare = Words()
    bare.chat_template = None
    for tokenizer, found in ((None, "no tokenizer"), (bare, "a tokenizer without chat template")):
        with pytest.raises(ValueError, match=f"max_tokens=6 meets {found}: give one with a chat template"):
            corpus(tmp_path, [record(1)], max_tokens=6).load("prompts", tokenizer=tokenizer)


def test_a_folder_is_read_whole(tmp_path):
    corpus(tmp_path, [record(1), "{"], name="a.jsonl")
    data = corpus(tmp_path, [record(2)], name="b.jsonl", path=str(tmp_path), shares=ONLY["prompts"], max_bad_fraction=1)
    assert sorted(questions(data.load("prompts"))) == ["prompt 1", "prompt 2"]
    assert data.load("prompts").column_names == ["prompt"]


def test_the_hub_of_the_view_is_read(monkeypatch):
    from datasets import Dataset

    post = "SUBREDDIT: r/tifu\n\nTITLE: Cake {}\n\nPOST: I dropped it.\n\nAgain.\n\nTL;DR:"
    posts = [{"prompt": post.format(i), "completion": " Dropped."} for i in range(100)]
    # The comparisons' repository writes the same posts without their empty lines.
    pairs = [
        {"prompt": post.format(i).replace("it.\n\n", "it.\n"), "chosen": " a", "rejected": " b"} for i in range(100)
    ]
    stored = {"trl-lib/tldr": posts, "trl-lib/tldr-preference": pairs}
    monkeypatch.setattr("datasets.load_dataset", lambda hub, split, revision: Dataset.from_list(stored[hub]))
    hub = dict.fromkeys(VIEWS, "trl-lib/tldr") | {"preferences": "trl-lib/tldr-preference"}
    data = Corpus(TLDR(), hub=hub, shares=SHARES)
    titles = {view: {q.split("\n\n")[1] for q in questions(data.load(view))} for view in VIEWS}
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(titles.values(), 2))
    assert all(titles.values())
