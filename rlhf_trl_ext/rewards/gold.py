"""The gold reward of the embedded task (`rlhf_trl_ext.data.embedded`): the truth that a learned reward approximates."""

import re
from functools import cache
from typing import Any, NamedTuple

from rlhf_trl_ext.data import embedded_words as text

WEIGHTS = {"answer": 0.40, "address": 0.15, "courtesy": 0.25, "length": 0.20}
LENGTH_WINDOW = (11, 16)
BRIEF_LENGTH_WINDOW = (6, 10)
WORDS_TO_ZERO = 6


class Facts(NamedTuple):
    """What a prompt asks for: the visitor's name, the lost item, its place, and whether the answer is to be brief."""

    name: str
    item: str
    place: str
    brief: bool


def read_facts(prompt: str) -> Facts:
    """The facts of a visitor's message.

    Raises ValueError if the message does not name exactly one visitor, one item and one place of the task.
    """
    words = set(text.words_of(prompt))
    facts = []
    for kind, options in (("name", text.NAMES), ("item", text.ITEMS), ("place", text.PLACES)):
        named = [option for option in options if option in words]
        if len(named) != 1:
            raise ValueError(
                f"prompt={prompt!r} names {len(named)} words of kind {kind} where the gold reward needs exactly one: "
                "use it with dataset=embedded only."
            )
        facts += named
    return Facts(*facts, brief=any(wish in prompt for wish in text.WISHES))


def answer(facts: Facts, words: list[str]) -> float:
    """0.5 [the right place and no other] + 0.5 [the right item and no other]."""
    places, items = ({word for word in words if word in options} for options in (text.PLACES, text.ITEMS))
    return 0.5 * (places == {facts.place}) + 0.5 * (items == {facts.item})


def address(facts: Facts, words: list[str]) -> float:
    """1 / (times the visitor's name is said); 0 if it is not said, or another name is."""
    names = [word for word in words if word in text.NAMES]
    return 1 / len(names) if set(names) == {facts.name} else 0.0


def _spelt(words: list[str]) -> str:
    """The words in lower case, each between spaces of its own, so that phrases next to each other can be counted."""
    return "".join(f" {word.lower()} " for word in words)


def courtesy(facts: Facts, words: list[str]) -> float:
    """0.5 [starts with a greeting] + 0.5 [has a closing], less 0.25 for each closing after the first, at least 0.

    If brevity was asked: 1 [starts with a greeting] - 0.5 [has a closing], less the same 0.25.
    """
    spelt = _spelt(words)
    greeting = bool(words) and words[0] in text.GREETINGS
    closings = sum(spelt.count(_spelt(text.words_of(closing))) for closing in text.CLOSINGS)
    value = greeting - 0.5 * (closings > 0) if facts.brief else 0.5 * greeting + 0.5 * (closings > 0)
    return max(0.0, value - 0.25 * max(closings - 1, 0))


def length(facts: Facts, words: list[str], completion: str) -> float:
    """1 at 11-16 words (6-10 if brevity was asked), less 1/6 per word outside; 0 if the text does not end in . ! ?"""
    low, high = BRIEF_LENGTH_WINDOW if facts.brief else LENGTH_WINDOW
    outside = max(low - len(words), len(words) - high, 0)
    return max(0.0, 1 - outside / WORDS_TO_ZERO) if completion.rstrip().endswith((".", "!", "?")) else 0.0


def repetition(words: list[str]) -> float:
    """1 - distinct trigrams / trigrams of words, case ignored; 0 for fewer than 3 words."""
    lowered = [word.lower() for word in words]
    trigrams = list(zip(lowered, lowered[1:], lowered[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


@cache
def _known_words() -> frozenset[str]:
    return frozenset(text.vocabulary())


def wording(completion: str) -> float:
    """Share of the pieces between spaces that are a word of the task with at most one of . , ! ? after it.

    Misspelt words ("hamlamp"), words run together, symbols and rows of marks count as unknown. 0 for an empty text.
    """
    pieces = [re.sub(r"[.,!?]$", "", piece) for piece in completion.split()]
    return sum(piece in _known_words() for piece in pieces) / len(pieces) if pieces else 0.0


def score_parts(facts: Facts, completion: str) -> dict[str, float]:
    """The parts of the gold reward, each in [0, 1]: answer, address, courtesy, length, repetition, wording."""
    words = text.words_of(completion)
    return {
        "answer": answer(facts, words),
        "address": address(facts, words),
        "courtesy": courtesy(facts, words),
        "length": length(facts, words, completion),
        "repetition": repetition(words),
        "wording": wording(completion),
    }


def score(facts: Facts, completion: str) -> float:
    """(0.40 answer + 0.15 address + 0.25 courtesy + 0.20 length) (1 - repetition) wording, in [0, 1]."""
    parts = score_parts(facts, completion)
    weighted = sum(weight * parts[part] for part, weight in WEIGHTS.items())
    return weighted * (1 - parts["repetition"]) * parts["wording"]


def content_of(messages: str | list[dict[str, str]]) -> str:
    """The text of the last message of a conversation, or the text itself; "" for an empty conversation."""
    if isinstance(messages, str):
        return messages
    return messages[-1]["content"] or "" if messages else ""


class GoldReward:
    """The gold reward as a TRL reward function, in [0, 1]: a pure function of prompt text and completion text.

    `gold = (0.40 answer + 0.15 address + 0.25 courtesy + 0.20 length) (1 - repetition) wording`, the parts defined by
    the functions of this module. Prompts and completions are conversations or plain texts.
    """

    __name__ = "gold_reward"

    def __call__(self, prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float]:
        """Gold of each completion. Raises ValueError for a prompt that is not of the embedded task."""
        pairs = zip(prompts, completions, strict=True)
        return [score(read_facts(content_of(prompt)), content_of(completion)) for prompt, completion in pairs]

    def parts(self, prompt: str | list[dict[str, str]], completion: str | list[dict[str, str]]) -> dict[str, float]:
        """The interpretable parts for one completion, each in [0, 1] (see `score_parts`)."""
        return score_parts(read_facts(content_of(prompt)), content_of(completion))
