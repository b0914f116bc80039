"""Rows as they lie about: each variant is read as its author meant it, or refused in one sentence."""

import json

import pytest

from rlhf_trl_ext.data.corpus import Corpus

QUESTION, GOOD, BAD = "Where is it?", "At the desk.", "no idea"
USER, SYSTEM = [{"role": "user", "content": QUESTION}], [{"role": "system", "content": "Be brief."}]
REPLY, WORSE = [{"role": "assistant", "content": GOOD}], [{"role": "assistant", "content": BAD}]
PAIR = {"prompt": USER, "chosen": REPLY, "rejected": WORSE}
TALK = {"prompt": USER, "completion": REPLY}
ROW = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD}


def hh(reply, before=""):
    return f"{before}\n\nHuman: {QUESTION}\n\nAssistant: {reply}"


def sharegpt(user="human", assistant="gpt", reply=GOOD):
    return [{"from": user, "value": QUESTION}, {"from": assistant, "value": reply}]


def loaded(folder, records, view, **options):
    (folder / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return Corpus(path=str(folder / "rows.jsonl"), **options).load(view).to_list()


READ = {
    "names in any case": ({"Prompt ": QUESTION, "CHOSEN": GOOD, "Rejected": BAD}, "preferences", PAIR),
    "distilabel's input and system": (
        {"system": "Be brief.", "input": QUESTION, "chosen": GOOD, "rejected": BAD},
        "preferences",
        {**PAIR, "prompt": SYSTEM + USER},
    ),
    "an empty system text": (
        {"system": "", "question": QUESTION, "chosen": GOOD, "rejected": BAD},
        "preferences",
        PAIR,
    ),
    "OpenRLHF's context_messages": ({**ROW, "prompt": None, "context_messages": USER}, "preferences", PAIR),
    "input and output": ({"input": QUESTION, "output": GOOD}, "demonstrations", TALK),
    "question and answer": ({"question": QUESTION, "answer": GOOD}, "demonstrations", TALK),
    "scores as text": ({**ROW, "score_chosen": "8.5", "score_rejected": "3"}, "preferences", PAIR),
    "Argilla's generations and rating": (
        {"instruction": QUESTION, "generations": [BAD, GOOD, "?"], "rating": ["2", 5, "N/A"]},
        "preferences",
        PAIR,
    ),
    "HH with a system turn": (
        {"chosen": hh(GOOD, "\n\nSystem: Be brief."), "rejected": hh(BAD, "\n\nSystem: Be brief.")},
        "preferences",
        {**PAIR, "prompt": SYSTEM + USER},
    ),
    "HH, cut before the reply": (
        {"prompt": f"\n\nHuman: {QUESTION}\n\nAssistant:", "chosen": GOOD, "rejected": BAD},
        "preferences",
        PAIR,
    ),
    "HH, a prompt beside whole transcripts": (
        {"prompt": f"\n\nHuman: {QUESTION}\n\nAssistant:", "chosen": hh(GOOD), "rejected": hh(BAD)},
        "preferences",
        PAIR,
    ),
    "roles in any case": ({"conversation": sharegpt("User", "BOT ")}, "demonstrations", TALK),
    "an empty system turn": (
        {"conversations": [{"from": "system", "value": ""}, *sharegpt()]},
        "demonstrations",
        TALK,
    ),
    "columns of null, as Arrow fills them": (
        {"messages": [{"from": None, "value": None, **turn} for turn in USER + REPLY], "tools": None},
        "demonstrations",
        TALK,
    ),
    "a history of turns": (
        {"history": [*USER, *REPLY], "instruction": "And now?", "output": GOOD},
        "prompts",
        {"prompt": [*USER, *REPLY, {"role": "user", "content": "And now?"}]},
    ),
    "mathematics with problem and solution": (
        {"problem": QUESTION, "solution": "\\boxed{4}"},
        "prompts",
        {"prompt": USER, "solution": "\\boxed{4}"},
    ),
}


@pytest.mark.parametrize(("record", "view", "row"), READ.values(), ids=READ)
def test_variants_that_are_read(tmp_path, record, view, row):
    assert loaded(tmp_path, [record], view) == [row]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (True, False),
        ("TRUE", "FALSE"),
        (1.0, 0.0),
        ("1", "-1"),
        ("yes", "no"),
        ("desirable", "undesirable"),
        ("👍", "👎"),
    ],
)
def test_spellings_of_labels(tmp_path, good, bad):
    records = [{"prompt": str(n), "completion": GOOD, "label": (bad, good)[n % 2]} for n in range(20)]
    rows = loaded(tmp_path, records, "unpaired")
    assert all(row["label"] == bool(int(row["prompt"][0]["content"]) % 2) for row in rows)
    with pytest.raises(ValueError, match=r"all labels are True; give replies of both kinds"):
        loaded(tmp_path, records[1::2], "unpaired")


REFUSED = {
    "other marks of a transcript": (
        {"chosen": f"User: {QUESTION}\n\nBot: {GOOD}", "rejected": f"User: {QUESTION}\n\nBot: {BAD}"},
        "has other marks than Human: and Assistant:",
    ),
    "a text before HH": (
        {"chosen": hh(GOOD, "Be brief."), "rejected": hh(BAD, "Be brief.")},
        "does not begin with Human:",
    ),
    "tools": ({"messages": USER + REPLY, "tools": [{"type": "function"}]}, "tools beside the text"),
    "tools of a request": (
        {"input": {"messages": USER, "tools": [{}]}, "preferred_output": REPLY, "non_preferred_output": WORSE},
        "tools beside the text",
    ),
    "a history of texts": ({"history": [QUESTION], "instruction": "?", "output": GOOD}, "wrong type: str instead of"),
    "images": ({**ROW, "images": ["a.png"]}, "images beside the text"),
    "turns of tools": ({"conversations": [*sharegpt(), {"from": "observation", "value": "{}"}]}, "turns of tools"),
    "calls of tools": ({"messages": [*USER, {"role": "assistant", "tool_calls": [{}]}]}, "turns of tools"),
    "a part without text": ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "no text"),
    "turns as a text": ({"conversations": json.dumps(sharegpt())}, "wrong type: conversations is str"),
    "an unknown role": ({"conversations": sharegpt("client")}, "unknown role client"),
    "an unequal number of scores": ({"instruction": "?", "generations": [GOOD], "ratings": [1, 2]}, "another number"),
    "a list of answers": (
        {"prompt": USER, "reward_model": {"ground_truth": ["4", "four"]}},
        "an answer to check against that is no text or number",
    ),
    "equal replies": ({**ROW, "rejected": GOOD}, "chosen == rejected"),
    "an empty prompt": ({**ROW, "prompt": ""}, "no prompt"),
    "no form": ({"note": 1}, r"rows.jsonl:1: columns note: no form of rows is recognised"),
}


@pytest.mark.parametrize(("record", "message"), REFUSED.values(), ids=REFUSED)
def test_variants_that_are_refused(tmp_path, record, message):
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path, [record], "prompts")


def test_two_forms_in_one_file_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 records are bad: missing field messages .*\[rows\.jsonl:2\]"):
        loaded(tmp_path, [{"messages": USER + REPLY}, {"instruction": QUESTION, "output": GOOD}], "demonstrations")


def test_tags_of_llama_factory_name_fields_and_roles(tmp_path):
    tags = {"role_tag": "who", "content_tag": "words", "user_tag": "client", "assistant_tag": "agent"}
    entry = {"file_name": "talks.json", "formatting": "sharegpt", "tags": tags}
    entry["columns"] = {"messages": "talk", "system": "absent"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"talks": entry}))
    talk = [{"who": "client", "words": QUESTION}, {"who": "agent", "words": GOOD}]
    (tmp_path / "talks.json").write_text(json.dumps([{"talk": talk}]))
    assert Corpus(path=str(tmp_path)).load("demonstrations").to_list() == [TALK]


def test_a_test_split_beside_a_training_split_is_not_trained_on(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "data").mkdir()
    for name, count in (("train-00000-of-00001", 3), ("test-00000-of-00001", 5)):
        lines = [json.dumps({**ROW, "prompt": f"{name} {n}"}) for n in range(count)]
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    corpora = {subset: Corpus(path=str(tmp_path), subset=subset) for subset in (None, "train", "test")}
    assert "holds the splits test, train: only train is read (dataset.subset)" in caplog.text
    for subset, corpus in corpora.items():
        prompts = {row["prompt"][0]["content"].split("-")[0] for row in corpus.load("preferences")}
        assert prompts == {subset or "train"}
    with pytest.raises(ValueError, match="subset=dev: allowed are test, train"):
        Corpus(path=str(tmp_path), subset="dev")
    (tmp_path / "data" / "train-00000-of-00001.jsonl").rename(tmp_path / "data" / "rows.jsonl")
    assert list(Corpus(path=str(tmp_path)).files) == ["data/rows.jsonl"]
    (tmp_path / "data" / "rows.jsonl").unlink()
    assert list(Corpus(path=str(tmp_path)).files) == ["data/test-00000-of-00001.jsonl"]  # the only one is read


def test_a_description_of_datasets_is_not_llama_factory_s(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"description": "", "features": {}}))
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    assert Corpus(path=str(tmp_path)).load("preferences").to_list() == [PAIR]
