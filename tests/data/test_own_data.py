"""Rows of one's own, as they lie about, train by one command each."""

import csv
import json

import pytest
from datasets import Dataset

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.data import inspection
from rlhf_trl_ext.stages.train import train

ASKED = [f"Where is parcel number {number}?" for number in range(60)]
GOOD, BAD = "It lies at the front desk.", "no idea"
NAMED = "dataset.columns={prompt: question, chosen: good, rejected: bad}"


def turn(role, content):
    return [{"role": role, "content": content}]


def as_csv(path):
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, ("question", "good", "bad"))
        rows.writeheader()
        rows.writerows({"question": asked, "good": GOOD, "bad": BAD} for asked in ASKED)


def as_lines(row):
    return lambda path: path.write_text("".join(json.dumps(row(asked)) + "\n" for asked in ASKED))


def saved(path):
    Dataset.from_list([{"prompt": asked, "chosen": GOOD, "rejected": BAD} for asked in ASKED]).save_to_disk(path)


# name of the file -> how it is written, what it trains, further overrides
ATTEMPTS = {
    "pairs.csv": (as_csv, "dpo", [NAMED]),
    "pairs.jsonl": (as_lines(lambda asked: {"question": asked, "good": GOOD, "bad": BAD}), "reward", [NAMED]),
    "standard.jsonl": (as_lines(lambda asked: {"prompt": asked, "chosen": GOOD, "rejected": BAD}), "dpo", []),
    "talks.jsonl": (
        as_lines(
            lambda asked: {
                "prompt": turn("user", asked),
                "chosen": turn("assistant", GOOD),
                "rejected": turn("assistant", BAD),
            }
        ),
        "reward",
        [],
    ),
    "messages.jsonl": (
        as_lines(lambda asked: {"messages": turn("user", asked) + turn("assistant", GOOD)}),
        "sft",
        [],
    ),
    "texts.jsonl": (as_lines(lambda asked: {"text": f"{asked} {GOOD}"}), "sft", []),
    "unpaired.jsonl": (
        as_lines(lambda asked: {"prompt": asked, "completion": GOOD, "label": asked.endswith("1?")}),
        "kto",
        [],
    ),
    "saved": (saved, "dpo", []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_trains(name, composed, tmp_path):
    write, algorithm, more = ATTEMPTS[name]
    write(tmp_path / name)
    steps = ["args.max_steps=2", "args.per_device_train_batch_size=4", "evaluate=false"]
    overrides = [f"++{value}" for value in (*steps, *more)]
    record = train(
        composed(
            "train",
            f"algorithm={algorithm}",
            "dataset=file",
            f"dataset.path={tmp_path / name}",
            f"output_root={tmp_path}",
            *overrides,
        )
    )
    assert record["steps"] == 2


def test_columns_of_other_names_are_not_guessed(composed, tmp_path):
    as_csv(tmp_path / "pairs.csv")
    config = composed("train", "algorithm=dpo", "dataset=file", f"dataset.path={tmp_path / 'pairs.csv'}")
    with pytest.raises(ConfigError, match=r"question, good, bad.*has no preferences.*'dataset\.columns=\{prompt: ques"):
        train(config)


def test_a_single_stage_trains_on_all_but_what_is_held_out_and_says_so(composed, tmp_path, caplog):
    from rlhf_trl_ext.configuration.checks import build

    caplog.set_level("INFO")
    ATTEMPTS["standard.jsonl"][0](tmp_path / "pairs.jsonl")
    overrides = ["dataset=file", f"dataset.path={tmp_path / 'pairs.jsonl'}", "dataset.max_tokens=null"]
    overrides += ["dataset.max_prompt_tokens=null"]
    alone = build(composed("train", *overrides).dataset, "dataset")
    for view in ("preferences", "demonstrations", "prompts"):
        rows = {row["prompt"][0]["content"] for row in alone.load(view, "train")}
        held_out = {row["prompt"][0]["content"] for row in alone.load(view, "evaluation")}
        assert rows | held_out == set(ASKED) and not rows & held_out and len(held_out) == 4  # of 60, by the hash
    assert "(all prompts but the 10% that are held out)" in caplog.messages[0]
    shared = build(composed("pipeline", *overrides).dataset, "dataset")
    views = [{row["prompt"][0]["content"] for row in shared.load(view)} for view in ("preferences", "prompts")]
    assert not views[0] & views[1]
    assert "(the reward share, 30% of the prompts)" in caplog.messages[6]


def test_rows_without_preferences_are_shown_in_the_view_that_they_have(composed, tmp_path):
    from rlhf_trl_ext.configuration.checks import build

    ATTEMPTS["messages.jsonl"][0](tmp_path / "rows.jsonl")
    overrides = ["dataset=file", f"dataset.path={tmp_path}/rows.jsonl", "dataset.max_tokens=null"]
    dataset = build(composed("data", *overrides, "dataset.max_prompt_tokens=null").dataset, "dataset")
    view, rows = inspection.load(dataset, None, "train", None)
    assert view == "demonstrations" and set(rows.column_names) == {"prompt", "completion"}
    with pytest.raises(ValueError, match=r"form=messages, .* has no preferences"):
        inspection.load(dataset, "preferences", "train", None)


def test_what_is_in_a_data_set():
    rows = Dataset.from_list(
        [
            {"prompt": turn("user", "ab"), "chosen": turn("assistant", "x" * 40), "rejected": turn("assistant", "y")},
            {
                "prompt": turn("system", "s") + turn("user", "abcd"),
                "chosen": turn("assistant", "x" * 40),
                "rejected": turn("assistant", "x" * 39 + "y"),
            },
        ]
    )
    facts = inspection.summary(rows)
    assert facts["rows"] == 2 and facts["unit"] == "characters"
    assert facts["lengths"]["chosen"] == [40, 40, 40, 40] and facts["lengths"]["prompt"][-1] == 6  # "s", a break, 4
    assert facts["repeated"] == 0
    again = inspection.summary(
        Dataset.from_list([{"prompt": turn("user", "ab"), "completion": turn("assistant", "ab c")}])
    )
    assert again["repeated"] == 1
    assert facts["nearly_equal"] == 0.5 and facts["turns"] == 2 and facts["system"] == 0.5


def test_the_rows_are_shown_before_training(composed, tmp_path, caplog, capsys):
    caplog.set_level("INFO", logger="rlhf_trl_ext")
    ATTEMPTS["standard.jsonl"][0](tmp_path / "pairs.jsonl")
    few = ["++args.max_steps=1", "++args.per_device_train_batch_size=2", "++evaluate=true"]
    overrides = ["algorithm=reward", "dataset=file", f"dataset.path={tmp_path / 'pairs.jsonl'}", *few]
    train(composed("train", *overrides, f"output_root={tmp_path}"))
    (line,) = (message for message in caplog.messages if " to train" in message)
    assert line.startswith("56 rows of preferences to train, 4 held out to evaluate; median prompt ")
    shown = capsys.readouterr().out
    assert shown.count("as the model reads the prompt:") == 3 and f"chosen: {GOOD}" in shown
    train(composed("train", *overrides, f"output_root={tmp_path}/quiet", "shown_rows=0"))
    assert "as the model reads" not in capsys.readouterr().out
