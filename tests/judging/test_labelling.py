"""Labels from opinions: exact properties, with judges whose answers are known."""

import json
import math
import statistics

import pytest
import yaml

from rlhf_trl_ext.judging.constitution import Constitution, Rubric
from rlhf_trl_ext.judging.gold import GoldJudge
from rlhf_trl_ext.judging.inquiry import Reading
from rlhf_trl_ext.judging.judge import Judge, sigmoid
from rlhf_trl_ext.judging.labelling import Labelling, Pair
from rlhf_trl_ext.judging.language_model import LanguageModelJudge
from rlhf_trl_ext.judging.verdicts import Display, Opinion


class Fixed(Judge):
    """P(first) = sigmoid(quality_1 - quality_2 + bias), a reply's quality being its number."""

    name = "fixed"

    def __init__(self, bias=0.0, scale=1.0):
        self.bias, self.scale, self.asked = bias, scale, []

    def prepare(self, displays, total=None, tolerant=False):
        self.asked = list(displays())

    def opinion(self, display):
        return Opinion(sigmoid(self.scale * (float(display.first) - float(display.second)) + self.bias), 0.9)


class First(Fixed):
    """Always what stands first."""

    def opinion(self, display):
        return Opinion(1.0)


class Mute(Fixed):
    """Unreadable where the reply 3 stands first."""

    def opinion(self, display):
        return Opinion(None if display.first == "3" else 0.9, 0.1)


PAIRS = [Pair("p", str(a), str(b), float(a > b)) for a in range(4) for b in range(a)]


def labels(judge, pairs=PAIRS, both_orders=True, **settings):
    judge.both_orders = both_orders
    return list(Labelling(**settings).labels(lambda: [pair.ordered() for pair in pairs], judge, len(pairs)))


def test_both_orders_are_shown_and_averaged_by_hand():
    judge = Fixed(bias=1.3, scale=0.7)
    (label,) = labels(judge, [Pair("p", "1", "2")])
    assert [(d.first, d.second) for d in judge.asked] == [("1", "2"), ("2", "1")]
    # 1 first: sigmoid(-.7 + 1.3) = .645656; 2 first: sigmoid(.7 + 1.3) = .880797, so 1 has .119203; mean .382430
    assert label.shown_first == pytest.approx(0.645656, abs=1e-6)
    assert label.shown_second == pytest.approx(0.119203, abs=1e-6)
    assert label.preference == pytest.approx(0.382430, abs=1e-6)
    # in logits the bias vanishes: (.6 - 2) / 2 = -.7
    (label,) = labels(judge, [Pair("p", "1", "2")], average="logit")
    assert label.preference == pytest.approx(sigmoid(-0.7), abs=1e-12)
    row = label.row()
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("2", "1")
    assert row["p_chosen"] == pytest.approx(sigmoid(0.7)) and row["margin"] == pytest.approx(2 * sigmoid(0.7) - 1)


@pytest.mark.parametrize("average", ["arithmetic", "logit"])
def test_the_order_of_writing_does_not_matter(average):
    turned = [Pair(p.prompt, p.second, p.first, 1 - p.known) for p in PAIRS]
    there, back = (labels(Fixed(0.5), pairs, average=average) for pairs in (PAIRS, turned))
    assert [label.row() for label in there] == [label.row() for label in back]
    one = labels(Fixed(0.5), PAIRS, both_orders=False)
    assert one == labels(Fixed(0.5), turned, both_orders=False)
    assert all((label.shown_first is None) != (label.shown_second is None) for label in one)


def test_a_labeller_that_names_what_stands_first_has_no_preference():
    from rlhf_trl_ext.stages.label_report import Tally

    tally = Tally()
    for label in labels(First()):
        assert label.preference == 0.5 and label.status == "tie" and not Labelling().trains(label)
        tally.add(label, False)
    summary = tally.summary()
    assert summary["position"]["position_bias"] == 1.0 and summary["position"]["order_flip_rate"] == 1.0
    assert summary["counts"]["tie"] == len(PAIRS) and summary["counts"]["rows"] == 0
    # the control: in one order it looks sure of everything
    assert all(label.status == "label" for label in labels(First(), both_orders=False))
    assert Labelling(ties="soft").trains(labels(First(), ties="soft")[0])


def test_unparsable_identical_and_clipped_labels():
    mute = labels(Mute(), PAIRS)
    with_three = sum("3" in (pair.first, pair.second) for pair in PAIRS)
    assert sum(label.status == "unparsable" for label in mute) == with_three
    assert all(label.preference is None for label in mute if label.status == "unparsable")  # never 0.5
    judge = Fixed()
    (same,) = labels(judge, [Pair("p", "1", "1 ")])
    assert same.status == "identical" and judge.asked == []
    clipped = labels(Fixed(scale=9.0), clip=[0.4, 0.6])
    assert {round(label.preference, 9) for label in clipped} == {0.4}  # the first in text order is always worse


def test_the_report_by_hand():
    from rlhf_trl_ext.stages.label_report import Tally, markdown

    tally = Tally()
    for label in labels(Fixed()):
        tally.add(label, True)
    found = tally.summary()
    # right on all 6 pairs; Wilson for 6 of 6: 1 / (1 + 1.96^2 / 6) = .610
    assert found["agreement"]["share"] == 1 and found["agreement"]["ci"][0] == pytest.approx(0.6097, abs=1e-3)
    assert found["position"]["position_bias"] == pytest.approx(0.0, abs=1e-12)
    assert found["mass"]["counts"][9] == 6 and found["mass"]["mean"] == pytest.approx(0.9)
    report = {"judge": "fixed", "seconds": 1.0, "cost": Judge.cost, "notices": [], **found}
    text = markdown(json.loads(json.dumps(report)))
    assert "Agrees with human or gold labels on 100.0%" in text and "| 6 | 6 | 0 | 0 | 0 | 6 |" in text


GOOD, BAD = "Hello Nora, the lamp is in the attic. Have a nice day!", "No."
VISIT = "I am Nora. I lost my red lamp in the attic."


def visits(count):
    from rlhf_trl_ext.data.embedded import Embedded

    rows = Embedded(seed=3, preferences=count).load("preferences")
    return [Pair(r["prompt"], r["chosen"][0]["content"], r["rejected"][0]["content"]).ordered() for r in rows]


def test_the_noisy_gold_labeller_is_as_wrong_and_biased_as_it_says():
    from rlhf_trl_ext.rewards.gold import GoldReward

    pairs, gold = visits(800), GoldReward()

    def right(label):
        first, second = gold(
            [label.pair.prompt] * 2, [[{"role": "assistant", "content": text}] for text in label.pair[1:3]]
        )
        return (first > second) == (label.preference > 0.5)

    sure = labels(GoldJudge(), pairs)
    assert all(map(right, sure)) and {label.preference for label in sure} == {0.0, 1.0}
    noisy = labels(GoldJudge(noise=0.1, position_bias=0.3), pairs)
    # .7 * .9 + .3 = .93 for its choice shown first, 1 - (.7 * .1 + .3) = .63 shown second: .78 after both orders
    assert {round(max(label.preference, 1 - label.preference), 9) for label in noisy} == {0.78}
    share = statistics.mean(map(right, noisy))
    assert abs(share - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 800)
    # a word, in one order: a right verdict is named with 1 first and .7 second, .85 in the mean, and the other one
    # with .15: .9 * .85 + .1 * .15 = .78
    drawn = labels(GoldJudge(0.1, 0.3, logprobs=False), pairs, both_orders=False)
    assert {label.preference for label in drawn} == {0.0, 1.0}
    expected = 0.9 * 0.85 + 0.1 * 0.15
    assert abs(statistics.mean(map(right, drawn)) - expected) < 4 * math.sqrt(expected * (1 - expected) / 800)
    named_first = statistics.mean((x.preference == 1) == (x.shown_first is not None) for x in drawn)
    assert abs(named_first - 0.65) < 4 * math.sqrt(0.65 * 0.35 / 800)  # .7 / 2 + .3


def test_noisy_gold_labels_depend_on_the_pair_alone():
    pairs = visits(50)
    judge = GoldJudge(0.2, 0.2, logprobs=False)
    there = labels(judge, pairs, both_orders=False)
    back = labels(judge, pairs[::-1], both_orders=False)
    assert there == back[::-1]
    assert there != labels(GoldJudge(0.2, 0.2, logprobs=False, seed=1), pairs, both_orders=False)


class Scripted(LanguageModelJudge):
    """Answers by a function of the inquiry, and keeps what it was asked."""

    def __init__(self, answer, **settings):
        super().__init__(model="scripted", **settings)
        self.answer, self.asked = answer, []

    def ask(self, inquiries, total=None, tolerant=False):
        self.asked += list(inquiries())

    def reading(self, inquiry):
        return self.answer(inquiry)


def test_principles_are_a_function_of_the_pair():
    constitution = Constitution("harmless", seed=0)
    displays = [Display("p", "a", str(i)) for i in range(240)]
    drawn = [constitution.draw(d.identity)[0] for d in displays]
    turned = [constitution.draw(Display("p", d.second, d.first).identity)[0] for d in displays[::-1]]
    assert drawn == turned[::-1]
    assert drawn != [Constitution("harmless", seed=1).draw(d.identity)[0] for d in displays]
    counts = [drawn.count(principle) for principle in constitution.principles]
    assert min(counts) > 240 / 6 - 4 * math.sqrt(240 * 5 / 36)  # uniform
    assert len(set(constitution.draw("x", 3))) == 3


def test_a_constitution_is_put_to_the_labeller_and_its_probabilities_averaged():
    def answer(inquiry):
        principle = dict(inquiry.values)["principle"]
        assert f"Principle: {principle}" in inquiry.question
        return Reading(0.9 if "insulting" in principle else 0.6, 1.0, "A")

    everything = len(Constitution("harmless").principles)
    judge = Scripted(answer, prompt="constitution", constitution="harmless", principles=everything)
    (label,) = labels(judge, [Pair("p", "1", "2")], both_orders=False)
    seen = label.shown_first if label.shown_first is not None else 1 - label.shown_second
    assert seen == pytest.approx((0.9 + 5 * 0.6) / 6)
    assert len(label.evidence[0]["principles"]) == 6


def test_a_rubric_by_hand():
    # aspects 5, 4, 3, 4 against 2 throughout: (5 + 4 + 3 + 4) / 4 = 4, so p = sigmoid(4 - 2) and the margin is 2
    levels = dict(zip(Rubric("ultrafeedback").prompts, (5, 4, 3, 4), strict=True))

    def answer(inquiry):
        aspect = inquiry.prompt.name.split(":")[1]
        return Reading(levels[aspect] if dict(inquiry.values)["response"] == "good" else 2, 0.8, "")

    judge = Scripted(answer, prompt=None, rubric="ultrafeedback")
    (label,) = labels(judge, [Pair("p", "good", "poor")])
    assert label.preference == pytest.approx(sigmoid(2)) and label.row()["margin"] == 2
    assert len(judge.asked) == 2 * 4 and label.mass == 0.8


def test_worked_examples_stand_before_the_case(tmp_path):
    path = tmp_path / "examples.yaml"
    path.write_text(yaml.safe_dump([{"prompt": "2 + 2?", "first": "4", "second": "5", "verdict": "A"}]))
    judge = Scripted(lambda inquiry: Reading(0.7, 1.0, "A"), examples=str(path))
    labels(judge, [Pair("p", "1", "2")])
    text = judge.asked[0].question
    assert text.index("2 + 2?") < text.index("\nA\n") < text.index("Now the case to judge") < text.index("\np\n")
    path.write_text(yaml.safe_dump([{"prompt": "2 + 2?", "first": "4", "second": "5", "verdict": "Q"}]))
    with pytest.raises(ValueError, match="verdict=Q; allowed are A, B"):
        Scripted(None, examples=str(path))


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda p: Constitution("harmles"), "constitution=harmles: no such file; allowed are harmless, helpful"),
        (lambda p: Constitution(p("- {compare: a, critique: b}")), "principle 1: give compare, critique, revise"),
        (lambda p: Constitution(p("a: [")), "is no YAML"),
        (lambda p: Rubric(p("a: {weight: 0, question: q, levels: [x, y]}")), "weight is above 0"),
        (lambda p: Rubric(p("a: {weight: 1}")), "aspect a: give weight, question and levels"),
        (lambda p: Scripted(None, prompt="quality", constitution="helpful"), "prompt=quality scores single replies"),
        (lambda p: Scripted(None, prompt="constitution"), "a constitution is needed where it has"),
        (
            lambda p: Scripted(None, prompt="constitution", constitution="helpful", principles=9),
            "principles=9: give 1 to 4",
        ),
        (lambda p: Scripted(None, rubric="ultrafeedback", prompt="tldr"), "rubric=ultrafeedback and prompt=tldr"),
        (lambda p: Labelling(average="mean"), "average=mean: allowed are arithmetic, logit"),
        (lambda p: Labelling(clip=[0.6, 0.4]), "clip="),
        (lambda p: GoldJudge(noise=0.5), "noise is in"),
    ],
)
def test_wrong_settings_are_told_in_a_sentence(make, told, tmp_path):
    def written(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    with pytest.raises(ValueError, match=told):
        make(written)
