"""Every row of the real samples, where they are present: set RLHF_SHARED to the folder that holds data/."""

import inspect
import itertools
import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from rlhf_trl_ext.data.corpus import Corpus

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("RLHF_SHARED", ROOT.parent / "shared"))
SOURCES = ("hh", "oasst", "ultrafeedback", "tldr")
SHARES = "{sft: 0.3, reward: 0.3, rl: 0.3, evaluation: 0.1}"
VIEWS = ("demonstrations", "preferences", "prompts")
FOLDERS = {"hh": "hh_rlhf", "oasst": "oasst", "ultrafeedback": "ultrafeedback_binarized", "tldr": "tldr"}


def configured(source, *overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose(overrides=[f"+dataset={source}", "+seed=7", *overrides]).dataset


def real(source, *overrides):
    folder = SHARED / "data" / FOLDERS[source]
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set RLHF_SHARED to the folder that holds data/")
    whole = ("dataset.max_tokens=null", "dataset.max_prompt_tokens=null", f"+shares={SHARES}")
    return instantiate(configured(source, f"dataset.path={folder}", *whole, *overrides), _convert_="all")


@pytest.mark.parametrize("source", SOURCES)
def test_configurations_build_and_list_every_option_with_its_default(source):
    config = configured(source)
    data = instantiate(config, _convert_="all")
    assert data.seed == 7
    parameters = inspect.signature(Corpus).parameters
    assert set(config) - {"_target_"} == set(parameters)
    own = {"convert", "form", "hub", "hub_file", "seed", "max_tokens", "max_prompt_tokens"}
    assert {n: config[n] for n in set(parameters) - own} == {n: parameters[n].default for n in set(parameters) - own}


def test_one_hub_data_set_may_replace_several():
    assert instantiate(configured("tldr", "dataset.hub=some/data"), _convert_="all").hub == "some/data"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        # Counted independently: 4 chosen transcripts end without text; 9 records have two turns of the assistant in a
        # row, among them all 5 whose two transcripts differ in the number of turns.
        ("hh", "2312 records (13 bad: two roles in a row 9 [harmless-base/test.jsonl.gz:668, "),
        ("oasst", " rows from 100 records ("),
        # eval.jsonl.gz lies beside it and is not read. Of the 4 with equal replies, 1 is a tie as well; 2 are empty.
        ("ultrafeedback", "1000 records (6 bad: chosen == rejected 4 [train.jsonl.gz:307, "),
        ("tldr", "1945 records (945 posts without comparison; "),
    ],
)
def test_all_views_of_the_real_samples(source, told, caplog):
    caplog.set_level("INFO")
    data = real(source)
    prompts = {}
    for view, split in itertools.product(VIEWS, ("train", "evaluation")):
        rows = data.load(view, split)
        assert len(rows) >= 10
        for row in rows:
            prompt, *replies = row.values()
            assert prompt[-1]["role"] == "user"
            assert [[turn["role"] for turn in reply] for reply in replies] == [["assistant"]] * len(replies)
            assert all(turn["content"].strip() for turn in itertools.chain(prompt, *replies))
        prompts.setdefault(view if split == "train" else split, set()).update(
            row["prompt"][0]["content"] for row in rows
        )
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(prompts.values(), 2))
    loads = [message for message in caplog.messages if " view=" in message]
    assert len(loads) == 6
    assert told in loads[2]
    assert (" bad: " in loads[2]) == (source in ("hh", "ultrafeedback"))


# Rows of all views when each gets all prompts, counted from the files without this package: HH 2,312 - 13, two prompts
# of which occur twice; OASST 429 = ranked replies less one per prompt that has any; UltraFeedback 1,000 - 6, 110 ties.
COUNTS = {
    "hh": (2299, 2299, 2297),
    "oasst": (141, 429, 480),
    "ultrafeedback": (994, 884, 994),
    "tldr": (1945, 1000, 1945),
}


@pytest.mark.parametrize("source", SOURCES)
def test_counts_when_a_view_gets_every_prompt(source):
    shares = ("sft", "reward", "rl")
    for view, mine, count in zip(VIEWS, shares, COUNTS[source], strict=True):
        overrides = [f"shares.{share}={float(share == mine)}" for share in (*shares, "evaluation")]
        assert len(real(source, *overrides).load(view)) == count


def test_token_limits_with_a_real_tokenizer():
    folder = SHARED / "models" / "stories260K"
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set RLHF_SHARED to the folder that holds models/")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    rows = real("hh", "dataset.max_tokens=256", "dataset.max_samples=50").load("preferences", tokenizer=tokenizer)
    assert len(rows) == 50
    for row in rows:
        for reply in (row["chosen"], row["rejected"]):
            ids = tokenizer.apply_chat_template(row["prompt"] + reply, return_dict=False, tokenize=True)
            assert len(ids) <= 256
