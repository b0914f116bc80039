"""Right and wrong answers in the spellings that models use."""

import pytest
from trl.rewards import accuracy_reward

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.rewards.verifiable import Accuracy
from rlhf_trl_ext.trainers.parts.signature import check_columns

pytest.importorskip("math_verify")

RIGHT = {
    "18": ["18", "#### 18", "The answer is 18.", "\\boxed{18}", "$18$", "18.0", "9 * 2 = 18", "**18**", "18 dollars"],
    "1800": ["1,800", "$1,800", "The total is \\$1800.", "1800.00", "$\\boxed{1{,}800}$", "1.8 * 1000 = 1800"],
    "0.5": ["1/2", "$\\frac{1}{2}$", "0.50", "50%", ".5"],
    "-3": ["-3", "x = -3", "$-3$"],
}
WRONG = {
    "18": ["19", "#### 8", "The answer is 180.", "\\boxed{17}", "$-18$", "18.5", "I do not know", "", "18 - 1 = 17"],
    "1800": ["1,80", "180", "18000", "1800.5"],
    "0.5": ["2", "$\\frac{2}{1}$", "5", "0.05"],
    "-3": ["3", "x = 3"],
}


def chat(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(("texts", "reward"), [(RIGHT, 1.0), (WRONG, 0.0)], ids=["right", "wrong"])
def test_answers_are_told_apart(texts, reward):
    accuracy = Accuracy()
    for solution, answers in texts.items():
        found = accuracy(None, [chat(text) for text in answers], solution=[solution] * len(answers))
        assert dict(zip(answers, found, strict=True)) == dict.fromkeys(answers, reward)


def test_a_solution_that_is_no_number_gives_no_reward():
    assert Accuracy()(None, [chat("18")], solution=["see the book"]) == [None]


def test_a_column_that_a_reward_takes_and_the_data_lack_is_refused_before_training():
    def short(completions, **columns):
        return [0.0 for _ in completions]

    check_columns([short, Accuracy(), accuracy_reward, "a/model"], ["prompt", "solution"])
    for function in (Accuracy(), accuracy_reward):
        with pytest.raises(ConfigError, match=r"accuracy\w* needs a column solution, .* has prompt, item: "):
            check_columns([short, function], ["prompt", "item"])
