"""Rows as others write them."""

import pytest

from rlhf_trl_ext.data.folders import llama_factory
from rlhf_trl_ext.data.forms import FORMS, NAMES, Forms
from rlhf_trl_ext.data.schema import BadRow, NoRow

PROMPT = [{"role": "user", "content": "2 + 2?"}]
FOUR, FIVE = [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}]
SCORES = {"score_chosen": 8.5, "score_rejected": 3.0}

TEXT = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "source_index": 7, "metadata": SCORES}
TRL_LIB = {"chosen": PROMPT + FOUR, "rejected": PROMPT + FIVE, **SCORES}
H4 = {"prompt": "2 + 2?", "prompt_id": "c0ffee", "messages": PROMPT + FOUR, **TRL_LIB}


@pytest.mark.parametrize("record", [TEXT, TRL_LIB, H4, {**TEXT, "metadata": None, **SCORES}])
def test_all_forms_give_the_same_rows(record):
    assert list(Forms("preference").rows(record, "preferences")) == [
        {"prompt": PROMPT, "chosen": FOUR, "rejected": FIVE}
    ]
    assert list(Forms("preference").rows(record, "demonstrations")) == [{"prompt": PROMPT, "completion": FOUR}]
    assert list(Forms("preference").rows(record, "prompts")) == [{"prompt": PROMPT}]


def test_a_system_turn_stays_in_the_prompt():
    system = [{"role": "system", "content": "Be brief."}]
    record = {"chosen": system + PROMPT + FOUR, "rejected": system + PROMPT + FIVE, **SCORES}
    assert next(Forms("preference").rows(record, "prompts")) == {"prompt": system + PROMPT}


@pytest.mark.parametrize("record", [TEXT, TRL_LIB])
def test_a_tie_is_no_preference_but_a_demonstration_and_a_prompt(record):
    tie = {**record, "metadata": None, "score_chosen": 7, "score_rejected": 7.0}
    with pytest.raises(NoRow, match="score ties"):
        list(Forms("preference").rows(tie, "preferences"))
    assert list(Forms("preference").rows(tie, "demonstrations")) == [{"prompt": PROMPT, "completion": FOUR}]
    assert list(Forms("preference").rows(tie, "prompts")) == [{"prompt": PROMPT}]


PAIR = {"preferences": {"prompt": PROMPT, "chosen": FOUR, "rejected": FIVE}}
DEMONSTRATION = {"demonstrations": {"prompt": PROMPT, "completion": FOUR}}
SHAREGPT = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]}]
SOLVED = {"prompts": {"prompt": PROMPT, "solution": "4"}}
GOOD = {"unpaired": {"prompt": PROMPT, "completion": FOUR, "label": True}, **DEMONSTRATION}
BAD = {"unpaired": {"prompt": PROMPT, "completion": FIVE, "label": False}}
# form -> records of it, and the rows that they are. Fields as documented: TRL "Dataset formats", OpenAI "Preference
# fine-tuning" and "Chat fine-tuning", LLaMA-Factory data/README.md, argilla's data set cards, verl "Prepare data",
# openbmb/UltraFeedback, openai/gsm8k.
WRITTEN = {
    "preference": [
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, PAIR),
        ({"chosen": "2 + 2? 4", "rejected": "2 + 2? 5"}, PAIR),
        ({"prompt": PROMPT, "chosen": FOUR, "rejected": FIVE}, PAIR),
        ({"chosen": PROMPT + FOUR, "rejected": PROMPT + FIVE}, PAIR),
        ({"prompt": "2 + 2?", "chosen": PROMPT + FOUR, "chosen-rating": 5.0, "rejected": PROMPT + FIVE}, PAIR),
        ({"chosen": "\n\nHuman: 2 + 2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: 5"}, PAIR),
        ({"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "5"}}, PAIR),
        ({"instruction": "2 + 2?", "input": "", "chosen": "4", "rejected": "5"}, PAIR),
    ],
    "openai_preference": [
        ({"input": {"messages": PROMPT}, "preferred_output": FOUR, "non_preferred_output": FIVE}, PAIR),
    ],
    "argilla": [({"instruction": "2 + 2?", "chosen_response": "4", "rejected_response": "5"}, PAIR)],
    "scored": [
        ({"instruction": "2 + 2?", "completions": [{"response": "5", "overall_score": 1.0},
                                                   {"response": "4", "overall_score": 9.0}]}, PAIR),
        ({"instruction": "2 + 2?", "generations": ["4", "4.5", "5"], "ratings": [5.0, None, 1]}, PAIR),
    ],
    "unpaired": [
        ({"prompt": "2 + 2?", "completion": "4", "label": True}, GOOD),
        ({"prompt": PROMPT, "completion": FIVE, "label": "false"}, BAD),
        ({"messages": PROMPT + FOUR, "label": 1}, GOOD),
        ({"conversations": SHAREGPT, "kto_tag": True}, GOOD),
    ],
    "verl": [({"prompt": PROMPT, "reward_model": {"style": "rule", "ground_truth": "4"}, "data_source": "x"}, SOLVED)],
    "solved": [({"problem": "", "question": "2 + 2?", "solution": "4"}, SOLVED)],
    "gsm8k": [({"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"},
               SOLVED | {"demonstrations": {"prompt": PROMPT, "completion": [
                   {"role": "assistant", "content": "2 + 2 = 4\n#### 4"}]}})],
    "messages": [({"messages": PROMPT + FOUR}, DEMONSTRATION), ({"messages": PARTS + FOUR}, DEMONSTRATION)],
    "sharegpt": [({"conversations": SHAREGPT}, DEMONSTRATION)],
    "alpaca": [({"instruction": "2 +", "input": "2?", "output": "4"},
                {"demonstrations": {"prompt": [{"role": "user", "content": "2 +\n\n2?"}], "completion": FOUR}})],
    "completion": [({"prompt": "2 + 2?", "completion": "4"}, DEMONSTRATION),
                   ({"prompt": PROMPT, "completion": FOUR}, DEMONSTRATION)],
    "prompts": [({"prompt": "2 + 2?"}, {"prompts": {"prompt": PROMPT}})],
    "text": [({"text": "a story"}, {"text": {"text": "a story"}}),
             ({"text": "\n\nHuman: 2 + 2?\n\nAssistant: 4"}, DEMONSTRATION)],
}  # fmt: skip


def test_every_form_is_recognised_and_read():
    assert set(WRITTEN) == set(NAMES) - {"stepwise"}
    for name, records in WRITTEN.items():
        for record, rows in records:
            form = next(form for form in FORMS if form.fits(record) and form.mark(record))
            assert form.name == name
            read = form.read(record)
            read.pop("tie", None)
            assert read == rows


def test_an_empty_field_of_the_first_record_hides_no_form():
    forms = Forms()
    with pytest.raises(BadRow, match="missing field rejected"):
        list(forms.rows({"prompt": "2 + 2?", "chosen": "4", "rejected": None}, "preferences"))
    assert list(forms.rows({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, "preferences"))
    mixed = {"messages": PROMPT + FOUR, "chosen": None, "rejected": None}
    assert next(Forms().rows(mixed, "demonstrations")) == {"prompt": PROMPT, "completion": FOUR}


def test_a_system_text_and_a_history_stand_before_the_prompt():
    record = {"system": "Be brief.", "history": [["1 + 1?", "2"]], "instruction": "2 + 2?", "output": "4"}
    (row,) = Forms().rows(record, "prompts")
    assert [(turn["role"], turn["content"]) for turn in row["prompt"]] == [
        ("system", "Be brief."),
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", "2 + 2?"),
    ]


def test_columns_of_other_names():
    named = Forms(columns={"prompt": "question", "chosen": "good", "rejected": "bad"})
    record = {"question": "2 + 2?", "good": "4", "bad": "5", "label": "unread"}
    assert list(named.rows(record, "preferences")) == [PAIR["preferences"]]
    with pytest.raises(BadRow, match="missing field good"):  # of one row among others
        list(named.rows({"question": "2 + 2?", "bad": "5"}, "preferences"))
    with pytest.raises(ValueError, match=r"columns: there is no column question; the file has a, b\."):
        list(Forms(columns=named.columns).rows({"a": 1, "b": 2}, "preferences"))
    with pytest.raises(
        ValueError, match=r"form=prompts, as the columns question, good, bad .*columns=\{prompt: question"
    ):
        list(Forms().rows({key: record[key] for key in ("question", "good", "bad")}, "preferences"))
    with pytest.raises(ValueError, match=r"columns a: no form of rows is recognised; name the columns"):
        list(Forms().rows({"a": 1}, "preferences"))
    with pytest.raises(ValueError, match=r"columns\.better: no such name; allowed are .*chosen"):
        Forms(columns={"better": "good"})
    with pytest.raises(ValueError, match=r"form=xml: allowed are .*sharegpt"):
        Forms("xml")


def test_views_that_a_form_does_not_have():
    with pytest.raises(NoRow, match="unpaired rows without demonstrations"):
        list(Forms().rows(WRITTEN["unpaired"][1][0], "demonstrations"))
    for name, view in (("messages", "preferences"), ("verl", "demonstrations"), ("unpaired", "preferences")):
        with pytest.raises(
            ValueError, match=rf"form={name}, as the columns .* has no {view}, only .*dataset\.columns="
        ):
            list(Forms().rows(WRITTEN[name][0][0], view))
    with pytest.raises(ValueError, match="process reward model"):
        list(Forms().rows({"prompt": "p", "completions": ["a"], "labels": [True]}, "preferences"))
    (pair_of_kto,) = Forms().rows(WRITTEN["preference"][0][0], "unpaired")
    assert pair_of_kto == PAIR["preferences"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**TEXT, "prompt": None}, "no prompt, and the texts do not begin alike"),
        ({**TEXT, "chosen": ""}, "empty turn"),
        ({**TEXT, "rejected": "4 "}, "chosen == rejected"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": "high"}}, "wrong type: score_chosen is no number"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": True}}, "wrong type: score_chosen is bool"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": float("nan")}}, "wrong type: score_chosen is not finite"),
        ({**TEXT, "metadata": {**SCORES, "score_chosen": 2}}, "score_chosen < score_rejected"),
        ({**TEXT, "chosen-rating": 1, "rejected-rating": 2, "metadata": None}, "chosen-rating < rejected-rating"),
        ({**TRL_LIB, "chosen": "4"}, "first turn is not the user's"),
        ({**TRL_LIB, "chosen": []}, "no turns"),
        ({**TRL_LIB, "chosen": PROMPT}, "last turn is not the assistant's"),
        ({**TRL_LIB, "chosen": PROMPT + PROMPT + FOUR}, "two roles in a row"),
        ({**TRL_LIB, "chosen": [{"role": "user"}, *FOUR]}, "missing field content"),
        ({**TRL_LIB, "chosen": [{"role": "judge", "content": "2 + 2?"}, *FOUR]}, "unknown role judge"),
        ({**TRL_LIB, "chosen": ["2 + 2?", "4"]}, "wrong type: str instead of an object"),
        ({**TRL_LIB, "rejected": [{"role": "user", "content": "3?"}, *FIVE]},
         "chosen and rejected have different prompts"),
        ({**H4, "prompt": "3 + 3?"}, "the conversation does not hold the prompt beside it"),
        ({**TRL_LIB, "rejected": None}, "missing field rejected"),
    ],
)  # fmt: skip
def test_malformed_records(record, reason):
    for view in ("demonstrations", "preferences", "prompts"):
        with pytest.raises(BadRow) as error:
            list(Forms("preference").rows(record, view))
        assert error.value.reason == reason


def test_llama_factory_describes_its_files():
    info = {
        "mine": {"file_name": "a.json", "columns": {"prompt": "q", "response": "r"}},
        "talk": {"file_name": "b.json", "formatting": "sharegpt", "columns": {"messages": "turns", "chosen": "c"}},
        "far": {"hf_hub_url": "x/y"},
    }
    assert llama_factory(info, "mine") == ("a.json", {"instruction": "q", "output": "r"}, {})
    assert llama_factory(info, "talk") == ("b.json", {"conversations": "turns", "chosen": "c"}, {})
    for name, message in (("none", "subset=none: allowed are far, mine, talk"), ("far", "names no file")):
        with pytest.raises(ValueError, match=message):
            llama_factory(info, name)
