"""Verdicts in the spellings that models use, each beside what it is not."""

import pytest

from rlhf_trl_ext.judging.prompt import load

A, B, TIE = 1.0, 0.0, 0.5


VERDICTS = [
    ("**A**", A, "**A** and **B**"),
    ("Ａ", A, "ＡＢ"),  # full-width
    ("Answer: A", A, "Answer: A or B"),
    ("Final verdict: **B**.", B, "No final verdict: B is missing"),
    ("The better reply is A.", A, "The better reply is neither A nor B."),
    ("Reply B", B, "Reply Be"),
    ("`A`", A, "`A`?"),
    ('{"verdict": "A"}', A, '{"verdict": "C"}'),
    ('```json\n{"reasoning": "B is long", "winner": "A"}\n```', A, '{"winner": "A", "verdict": "B"}'),
    ('{"Answer": "B"}', B, '{"reason": "B"}'),
    ("[[B]]", B, "[[A]] [[B]]"),
    ("Tie", TIE, "Tie me up"),
    ("Both", TIE, "Both have flaws, A fewer"),
    ("Both are equally good.", TIE, "Both are good"),
    ("It's a tie.", TIE, "It's a tie-breaker"),
    ('{"verdict": "tie"}', TIE, '{"verdict": "tied down"}'),
    ("<think>A is short, B long.</think>\n\nB", B, "<think>so it is B"),
]
SCORES = [
    ("4", 4.0, "-4"),
    ("4/5", 4.0, "4/7"),
    ("Rating: 3", 3.0, "Rating: 3 or 4"),
    ("Score: 2 out of 5", 2.0, "Score: 2 out of 50"),
    ('{"score": 5}', 5.0, '{"score": 6}'),
    ("**3**", 3.0, ".3"),
    ("4.5", 4.5, "5.5"),
    ("3", 3.0, "Tie"),
]
AFTER_REASONS = [
    ("A is shorter.\n\n【【A】】", A, "A is shorter.\n\nA"),
    ("So:\nVerdict: B", B, "Verdict: B\nOn reflection A is as good"),
    ("[[tie]]", TIE, "[[ties]]"),
    ("Reasons.\n**Final verdict: C**", TIE, "Reasons.\nFinal verdict: D"),
]
CASES = {"helpfulness": VERDICTS, "quality": SCORES, "mt_bench_pair": AFTER_REASONS}


@pytest.mark.parametrize(
    "name, answer, value, neighbour", [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_an_answer_is_read_and_its_neighbour_is_not(name, answer, value, neighbour):
    prompt = load(name)
    assert prompt.parsed(answer) == value
    assert prompt.parsed(neighbour) is None
