import math
import re
from dataclasses import replace

import pytest
import yaml

from rlhf_trl_ext.judging.prompt import PROMPTS, as_text, load

PAIR = {
    "kind": "pair",
    "instructions": "Compare.",
    "show": "{prompt} | {first} | {second}",
    "answer": "A or B?",
    "verdicts": {"A": "first", "B": "second"},
    "max_tokens": 1,
}


def written(tmp_path, **changes):
    content = {key: value for key, value in {**PAIR, **changes}.items() if value is not ...}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in PROMPTS.glob("*.yaml")))
def test_every_prompt_loads_and_shows_what_it_is_given(name):
    prompt = load(name)
    values = {"prompt": "<p>", "first": "<1>", "second": "<2>", "response": "<r>"}
    text = prompt.text(**values)
    shown = ["<p>", "<1>", "<2>"] if prompt.kind == "pair" else ["<p>", "<r>"]
    text = text.replace("{principle}", "")  # a constitution puts it in, pair by pair
    assert all(text.count(part) == 1 for part in shown) and "{" not in text
    assert len((PROMPTS / f"{name}.yaml").read_text().splitlines()) <= 40


def _unmarked(text):
    return re.sub(r"\[begin \w+\]\n|\n\[end \w+\]", "", text)


def test_braces_in_what_is_shown_stay(tmp_path):
    prompt = load(written(tmp_path))
    assert prompt.name == "mine"
    assert _unmarked(prompt.material(prompt="{first}", first="{x} {prompt}", second="}{")) == (
        "{first} | {x} {prompt} | }{"
    )


@pytest.mark.parametrize(
    "answer, value",
    [
        ("A", 1.0),
        (" B.", 0.0),
        ("**A**", 1.0),
        ("A good reply tells", None),
        ("A, B", None),
        ("neither", None),
        ("AB", None),
        ("", None),
    ],
)
def test_bare_verdicts_are_read(answer, value):
    assert load("tldr").parsed(answer) == value


def test_reasoned_verdicts_are_read_from_the_last_match():
    prompt = load("mt_bench_pair")
    assert prompt.parsed("[[A]] would be wrong because ... [[B]]") == 0.0
    assert prompt.parsed("so it is [[C]]") == 0.5
    assert prompt.parsed("A is better") is None
    single = load("mt_bench_single")
    assert single.parsed("Good. [[7]]") == 7.0 and single.parsed("[[7.5]]") == 7.5
    assert single.parsed("[[11]]") is None and single.parsed("7") is None


def test_logprobs_by_hand():
    # A in two spellings 0.3 + 0.3, B 0.2: mass 0.8, so A has 0.75
    prompt = load("tldr")
    tokens = {"A": math.log(0.3), " A": math.log(0.3), "B": math.log(0.2), "The": math.log(0.1)}
    assert prompt.expected(tokens) == pytest.approx(0.75)
    assert prompt.expected({"A": math.log(0.2), "The": math.log(0.8)}) is None  # mass below one half
    # scores 4 and 5 with equal probability
    assert load("quality").expected({"4": math.log(0.4), "5": math.log(0.4)}) == pytest.approx(4.5)
    assert load("quality").uses_logprobs and not load("mt_bench_single").uses_logprobs


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"show": "{prompt} | {first}"}, r"lacks the placeholder \{second\}"),
        ({"kind": "triple"}, "kind=triple; allowed are pair, single"),
        ({"answer": ...}, "lacks the field answer"),
        ({"extra": 1}, "no such field extra"),
        ({"verdicts": {"A": "first"}}, "verdicts name first and second"),
        ({"kind": "single", "show": "{prompt} {response}"}, "scale=None; give"),
    ],
)
def test_wrong_prompt_files_are_told_in_a_sentence(changes, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        load(written(tmp_path, **changes))


def test_an_unknown_prompt_names_the_known_ones():
    with pytest.raises(ValueError, match=r"prompt=tdlr: no such file; allowed are .*tldr"):
        load("tdlr")


def test_conversations_are_shown_with_roles():
    assert as_text([{"role": "user", "content": "Hi"}]) == "Hi"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    assert as_text(turns) == "User: Hi\n\nAssistant: Yes?"


def test_equally_likely_scores_expect_the_middle_of_the_scale():
    # (1 + ... + 10) / 10 = 5.5, whatever mass other tokens have
    prompt = replace(load("quality"), scale=(1, 10))
    logprobs = {str(score): math.log(0.08) for score in range(1, 11)} | {"x": math.log(0.2)}
    assert prompt.expected(logprobs) == pytest.approx(5.5)
