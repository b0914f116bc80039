"""The embedded task: deterministic, disjoint, noisy as declared."""

import hashlib
import json
import math
import subprocess
import sys

import pytest

from rlhf_trl_ext.data import embedded_words as text
from rlhf_trl_ext.data.embedded import DISTINCT_REPORTS, Embedded, Visit, visit
from rlhf_trl_ext.rewards.gold import GoldReward, read_facts

VIEWS = ("demonstrations", "preferences", "prompts")
SMALL = {"demonstrations": 60, "preferences": 50, "prompts": 40, "evaluation": 30}


def prompts_of(rows):
    return [row["prompt"][0]["content"] for row in rows]


@pytest.fixture(scope="module")
def full():
    embedded = Embedded(seed=0)
    views = {view: embedded.load(view) for view in VIEWS}
    return views | {"evaluation": embedded.load("prompts", "evaluation")}


def test_default_sizes_prompts_distinct_and_splits_disjoint(full):
    sizes = {name: len(rows) for name, rows in full.items()}
    assert sizes == {"demonstrations": 8000, "preferences": 3000, "prompts": 2000, "evaluation": 512}
    everything = [prompt for rows in full.values() for prompt in prompts_of(rows)]
    # 8000 + 3000 + 2000 + 512 rows, no prompt twice: disjoint splits, and more than 5,000 distinct prompts
    assert len(everything) == len(set(everything)) == 13512


def test_columns_are_trl_conversations(full):
    user, assistant = full["demonstrations"][0]["prompt"], full["demonstrations"][0]["completion"]
    assert [message["role"] for message in user] == ["user"]
    assert [message["role"] for message in assistant] == ["assistant"]
    assert full["demonstrations"].column_names == ["prompt", "completion"]
    assert full["preferences"].column_names == ["prompt", "chosen", "rejected"]
    assert full["prompts"].column_names == ["prompt"]


def test_visits_are_distinct_and_number_16_12_16_12_5():
    assert DISTINCT_REPORTS == 16 * 12 * 16 * 12 * 5 == 184_320
    # mixed radix, name fastest: number 0 is every first option, number 1 the second name
    assert visit(0) == Visit("Mina", "broken", "hammer", "garden", text.REPORTS[0], "")
    assert visit(1).name == "Paula" and visit(16).adjective == "striped"
    assert len({visit(number).prompt for number in range(0, DISTINCT_REPORTS, 7)}) == math.ceil(184_320 / 7)


def test_prompt_names_all_facts_and_wish():
    case = Visit("Mina", "broken", "hammer", "garden", text.REPORTS[1], text.WISHES[0])
    assert case.prompt == "I am Mina. I lost my broken hammer in the garden. Keep it short."


def test_no_sentence_contains_a_fact_word():
    facts = {*text.NAMES, *text.ADJECTIVES, *text.ITEMS, *text.PLACES}
    assert len(facts) == 16 + 12 + 16 + 12  # the lists are disjoint
    sentences = (*text.REPORTS, *text.WISHES, *text.GREETINGS, *text.SENTENCES, *text.SHORT_SENTENCES)
    for sentence in (*sentences, *text.VAGUE_SENTENCES, *text.CLOSINGS):
        left = sentence.format(name="", adjective="", item="", place="")
        assert not facts & {word for form in text.words_of(left) for word in (form, form.lower())}, sentence


def test_a_third_of_the_prompts_asks_for_brevity(full):
    brief = sum(any(wish in prompt for wish in text.WISHES) for prompt in prompts_of(full["demonstrations"]))
    # binomial(8000, .35): mean .35, standard deviation sqrt(.35 * .65 / 8000) = .0053; four of them are .021
    assert abs(brief / 8000 - 0.35) < 0.021


def test_demonstrations_are_of_mixed_quality(full):
    rows = full["demonstrations"]
    golds = GoldReward()(rows["prompt"], rows["completion"])
    mean = sum(golds) / len(golds)
    spread = math.sqrt(sum((gold - mean) ** 2 for gold in golds) / len(golds))
    assert 0.40 < mean < 0.60
    assert 0.20 < spread < 0.35


def disagreement(rows):
    gold = GoldReward()
    chosen, rejected = (gold(rows["prompt"], rows[side]) for side in ("chosen", "rejected"))
    assert all(abs(a - b) > 1e-9 for a, b in zip(chosen, rejected, strict=True))  # no ties in gold
    expected = sum(1 / (1 + math.exp(abs(a - b) / 0.10)) for a, b in zip(chosen, rejected, strict=True)) / len(chosen)
    return sum(a < b for a, b in zip(chosen, rejected, strict=True)) / len(chosen), expected


def test_label_noise_is_the_declared_one(full):
    # A pair with gold gap d is labelled against gold with probability sigmoid(-d / noise) at noise = .10; the share
    # over 3,000 pairs has standard deviation below sqrt(.25 / 3000) = .0091, and about .005 at a share of .1.
    share, expected = disagreement(full["preferences"])
    assert abs(share - expected) < 0.02
    assert 0.07 < expected < 0.14


def test_without_noise_every_label_follows_gold():
    share, _ = disagreement(Embedded(**SMALL, noise=0.0).load("preferences"))
    assert share == 0


def test_evaluation_split_gives_every_view_on_the_same_held_out_prompts():
    embedded = Embedded(**SMALL)
    held_out = [prompts_of(embedded.load(view, "evaluation")) for view in VIEWS]
    assert held_out[0] == held_out[1] == held_out[2]
    assert len(held_out[0]) == 30


def test_max_samples_keeps_a_prefix_of_each_training_view():
    capped, uncapped = Embedded(**SMALL, max_samples=45), Embedded(**SMALL)
    for view, size in (("demonstrations", 45), ("preferences", 45), ("prompts", 40)):
        assert capped.load(view).to_list() == uncapped.load(view).to_list()[:size]
    assert len(capped.load("prompts", "evaluation")) == 30


def digest(embedded):
    rows = [embedded.load(view).to_list() for view in VIEWS]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_same_rows_in_another_process_with_another_hash_seed():
    program = (
        "import sys; sys.path.insert(0, 'tests/data'); import test_embedded as t; "
        "e = t.Embedded(seed=3, **t.SMALL); print(t.digest(e))"
    )
    here = Embedded(seed=3, **SMALL)
    environment = {"PYTHONHASHSEED": "77", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(here)]


def test_seed_changes_rows():
    one, other = Embedded(seed=3, **SMALL), Embedded(seed=4, **SMALL)
    assert digest(one) != digest(other)


def test_vocabulary_covers_every_generated_word(full):
    known = set(text.vocabulary())
    for row in full["demonstrations"].select(range(2000)):
        assert set(text.words_of(row["completion"][0]["content"])) <= known
        facts = read_facts(row["prompt"][0]["content"])  # raises if a fact is missing or doubled
        assert facts.name in text.NAMES and set(text.words_of(row["prompt"][0]["content"])) <= known


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": 0}, "prompts=0"),
        ({"max_samples": 0}, "max_samples=0"),
        ({"demonstrations": 184_320}, "184320"),
        ({"noise": -0.1}, "noise=-0.1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Embedded(**options)


@pytest.mark.parametrize(("view", "split", "message"), [("pairs", "train", "view=pairs"), (VIEWS[0], "test", "split=")])
def test_unknown_view_or_split_is_refused(view, split, message):
    with pytest.raises(ValueError, match=message):
        Embedded(**SMALL).load(view, split)


def test_held_out_pairs_are_in_the_gold_order():
    share, _ = disagreement(Embedded(**SMALL).load("preferences", "evaluation"))
    assert share == 0
