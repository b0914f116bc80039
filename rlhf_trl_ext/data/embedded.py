"""The embedded task: a lost-and-found desk, generated from a seed, with a gold reward computed by code.

A visitor reports a lost thing, the assistant answers in one or two short sentences. This is the gold-reward setting of
Gao et al. (arXiv:2210.10760): `rlhf_trl_ext.rewards.gold.GoldReward` is the truth, preferences are noisy samples of it.
"""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlhf_trl_ext.data import embedded_words as text
from rlhf_trl_ext.quantities import Seed
from rlhf_trl_ext.rewards import gold

if TYPE_CHECKING:
    from datasets import Dataset

VIEWS = ("demonstrations", "preferences", "prompts")
SPLITS = ("train", "evaluation")
BRIEF_SHARE = 0.35
FACTS = (text.NAMES, text.ADJECTIVES, text.ITEMS, text.PLACES, text.REPORTS)
DISTINCT_REPORTS = math.prod(map(len, FACTS))


@dataclass(frozen=True)
class Visit:
    """One visitor's report: who lost what where, how it is worded, and the wish for brevity ("" for none)."""

    name: str
    adjective: str
    item: str
    place: str
    report: str
    wish: str

    @property
    def prompt(self) -> str:
        """The visitor's message."""
        report = self.report.format(name=self.name, adjective=self.adjective, item=self.item, place=self.place)
        return f"{report} {self.wish}".rstrip()


def visit(number: int, wish: str = "") -> Visit:
    """The visit with this number, a mixed-radix index into the fact lists: number in [0, DISTINCT_REPORTS)."""
    chosen = []
    for options in FACTS:
        number, index = divmod(number, len(options))
        chosen.append(options[index])
    return Visit(*chosen, wish)


def _between(low: float, high: float, skill: float) -> float:
    return low + (high - low) * skill


def demonstrate(case: Visit, rng: random.Random) -> str:
    """A reply of mixed quality by a writer of hidden skill s ~ U(0, 1).

    Each good choice succeeds with probability low + (high - low) s: right item and place .85-1, a full sentence .2-.8
    (else a short or a vague one), a greeting .15-.8, with the name .4-.9 given a greeting, a closing .15-.8 (.3-.15 if
    brevity was asked; 8 % of closings are doubled); the sentence is said twice with probability .10 (1 - s).
    """
    skill = rng.random()

    def succeeds(low: float, high: float) -> bool:
        return rng.random() < _between(low, high, skill)

    item = case.item if succeeds(0.85, 1.0) else rng.choice(text.ITEMS)
    place = case.place if succeeds(0.85, 1.0) else rng.choice(text.PLACES)
    if succeeds(0.2, 0.8):
        options = text.SENTENCES
    else:
        options = text.SHORT_SENTENCES if rng.random() < 0.6 else text.VAGUE_SENTENCES
    sentence = rng.choice(options).format(item=item, place=place)
    reply = text.capitalised(sentence)
    if succeeds(0.15, 0.8):
        name = f" {case.name}" if succeeds(0.4, 0.9) else ""
        reply = f"{rng.choice(text.GREETINGS)}{name}, {sentence}"
    if succeeds(0.1, 0.0):
        reply = f"{reply} {text.capitalised(sentence)}"
    if succeeds(0.3, 0.15) if case.wish else succeeds(0.15, 0.8):
        closings = rng.sample(text.CLOSINGS, 2 if rng.random() < 0.08 else 1)
        reply = " ".join([reply, *closings])
    return reply


class Embedded:
    """The task as TRL data sets, a pure function of the options: same options, same rows, on every machine.

    seed: of the prompts, the replies and the label noise.
    demonstrations, preferences, prompts: rows of the three training views; evaluation: held-out prompts, rows.
    noise: temperature of the labels in gold units, P(a chosen) = sigmoid((gold_a - gold_b) / noise); 0 = no noise.
    max_samples: cap on the rows of each training view (a prefix of the uncapped rows), or None.
    preferred_by: parts of gold (`gold.score_parts`) that pairs are judged by instead, by their mean, for a reward model
    of one objective among several; repeated and misspelt words count against a reply as in gold.
    Raises ValueError if a count is not positive, if all together exceed the distinct reports, or if noise < 0.
    """

    def __init__(
        self,
        seed: Seed = 0,
        demonstrations: int = 8000,
        preferences: int = 3000,
        prompts: int = 2000,
        evaluation: int = 512,
        noise: float = 0.10,
        max_samples: int | None = None,
        preferred_by: list[str] | None = None,
    ) -> None:
        self.seed, self.noise, self.max_samples = seed, noise, max_samples
        self.preferred_by = preferred_by
        if unknown := set(preferred_by or []) - set(gold.WEIGHTS):
            raise ValueError(f"preferred_by={sorted(unknown)}: allowed are {', '.join(gold.WEIGHTS)}.")
        self.gold = gold.GoldReward()
        self.sizes = {
            "evaluation": evaluation,
            "prompts": prompts,
            "preferences": preferences,
            "demonstrations": demonstrations,
        }
        caps = {} if max_samples is None else {"max_samples": max_samples}
        for key, value in (self.sizes | caps).items():
            if value < 1:
                raise ValueError(f"{key}={value} of dataset=embedded is not allowed: give at least 1 row.")
        if (total := sum(self.sizes.values())) > DISTINCT_REPORTS:
            raise ValueError(
                f"{'+'.join(self.sizes)}={total} prompts are asked of dataset=embedded, which has {DISTINCT_REPORTS} "
                "distinct ones: ask for fewer."
            )
        if not noise >= 0:
            raise ValueError(f"noise={noise} of dataset=embedded is not allowed: give a number >= 0, in gold units.")

    def load(
        self,
        view: Literal["demonstrations", "preferences", "prompts", "unpaired"],
        split: Literal["train", "evaluation"] = "train",
        tokenizer: Any = None,
    ) -> "Dataset":
        """Rows in TRL's conversational columns: prompt/completion, prompt/chosen/rejected, or prompt.

        The train prompts of the three views and the evaluation prompts are pairwise disjoint; split="evaluation" gives
        any view on the evaluation prompts, its pairs in the gold order, without noise, so that a reward model's
        accuracy there is its agreement with gold. "unpaired" gives preferences, which TRL takes apart. tokenizer is
        accepted for the common interface and not used.
        Raises ValueError for an unknown view or split.
        """
        from datasets import Dataset

        view = "preferences" if view == "unpaired" else view
        for key, value, allowed in (("view", view, VIEWS), ("split", split, SPLITS)):
            if value not in allowed:
                raise ValueError(f"{key}={value} is unknown to dataset=embedded: choose one of {', '.join(allowed)}.")
        noise = self.noise if split == "train" else 0.0
        return Dataset.from_list([self._row(view, number, noise) for number in self._numbers(view, split)])

    def _numbers(self, view: str, split: str) -> list[int]:
        """Visit numbers of a view: consecutive slices of one seeded permutation, hence disjoint."""
        numbers = list(range(DISTINCT_REPORTS))
        random.Random(self.seed).shuffle(numbers)
        bucket = view if split == "train" else "evaluation"
        start = 0
        for key, size in self.sizes.items():
            if key == bucket:
                break
            start += size
        if split == "train" and self.max_samples is not None:
            size = min(size, self.max_samples)
        return numbers[start : start + size]

    def _row(self, view: str, number: int, noise: float) -> dict[str, list[dict[str, str]]]:
        """One row; the prompt depends on seed and number only, the replies also on the view."""
        wish_rng = random.Random(f"{self.seed} {number} wish")
        case = visit(number, wish_rng.choice(text.WISHES) if wish_rng.random() < BRIEF_SHARE else "")
        row = {"prompt": [{"role": "user", "content": case.prompt}]}
        rng = random.Random(f"{self.seed} {number} {view}")
        if view == "demonstrations":
            row["completion"] = _reply(demonstrate(case, rng))
        elif view == "preferences":
            chosen, rejected = self._pair(case, rng, noise)
            row |= {"chosen": _reply(chosen), "rejected": _reply(rejected)}
        return row

    def _score(self, facts: gold.Facts, reply: str) -> float:
        """What a pair is judged by: gold, or some of its parts."""
        if not self.preferred_by:
            return gold.score(facts, reply)
        parts = gold.score_parts(facts, reply)
        mean = sum(parts[name] for name in self.preferred_by) / len(self.preferred_by)
        return mean * (1 - parts["repetition"]) * parts["wording"]

    def _pair(self, case: Visit, rng: random.Random, noise: float) -> tuple[str, str]:
        """Two replies of different worth (equal worth has no order to learn), labelled by a noisy comparison."""
        facts = gold.read_facts(case.prompt)
        first = second = demonstrate(case, rng)
        while math.isclose(self._score(facts, first), self._score(facts, second)):
            second = demonstrate(case, rng)
        gap = self._score(facts, first) - self._score(facts, second)
        prefer_first = gap > 0 if noise == 0 else rng.random() < 0.5 * (1 + math.tanh(gap / noise / 2))
        return (first, second) if prefer_first else (second, first)


def _reply(content: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": content}]
