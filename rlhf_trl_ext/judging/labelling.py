"""From opinions about displays to labels of pairs: both orders, ties, what could not be read."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_trl_ext.judging import verdicts
from rlhf_trl_ext.judging.judge import Judge, sigmoid
from rlhf_trl_ext.judging.verdicts import Display

AVERAGES, TIES = ("arithmetic", "logit"), ("drop", "soft")
LABEL, TIE, IDENTICAL, UNPARSABLE = "label", "tie", "identical", "unparsable"
EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before their logits are averaged


class Pair(NamedTuple):
    """Two replies to a prompt. known: 1 where the first is better by human or gold labels, 0 or 0.5, None if unknown.

    `known` is for the report and reaches no judge.
    """

    prompt: str | list[dict]
    first: str
    second: str
    known: float | None = None

    def ordered(self) -> "Pair":
        """The same pair with its replies in the order of their text, so that the order of writing does not matter."""
        if self.first <= self.second:
            return self
        return Pair(self.prompt, self.second, self.first, None if self.known is None else 1 - self.known)


@dataclass(frozen=True)
class Label:
    """preference: probability that the pair's first reply is better; None where unparsable. status: what became of it.

    shown_first, shown_second: that probability when it stood first, and second. mass: the least of both orders.
    """

    pair: Pair
    status: str
    preference: float | None = None
    shown_first: float | None = None
    shown_second: float | None = None
    mass: float | None = None
    scores: tuple[float, float] | None = None
    evidence: tuple[dict, ...] = ()

    def row(self) -> dict:
        """A row to train on: prompt, chosen, rejected, p_chosen, margin (of the scores, else `2 p - 1`), evidence."""
        won = self.preference >= 0.5
        chosen, rejected = (self.pair.first, self.pair.second) if won else (self.pair.second, self.pair.first)
        p_chosen = max(self.preference, 1 - self.preference)
        margin = 2 * p_chosen - 1 if self.scores is None else abs(self.scores[0] - self.scores[1])
        names = ("status", "shown_first", "shown_second", "mass", "scores")
        evidence = {"chosen_is_first": won, **{name: getattr(self, name) for name in names}, "said": self.evidence}
        return {
            "prompt": self.pair.prompt,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "p_chosen": p_chosen,
            "margin": margin,
            "evidence": evidence,
        }


@dataclass(frozen=True)
class Labelling:
    """How opinions become labels.

    average, over the orders in which a judge saw the pair: arithmetic, `(p_AB + p_BA) / 2`, p being the first reply's
    probability, or logit, the mean of both logits, from which a bias that adds to the logit vanishes exactly.
    tie_width: a label ties where `|p - 1/2|` is below it; ties: they are dropped, or kept soft. clip: probabilities are
    brought into this interval, such as [0.4, 0.6] after a chain of thought (arXiv:2212.08073).
    Raises ValueError for a value that is not allowed.
    """

    average: str = "arithmetic"
    ties: str = "drop"
    tie_width: float = 0.05
    clip: list[float] | None = None

    def __post_init__(self) -> None:
        for key, value, allowed in (("average", self.average, AVERAGES), ("ties", self.ties, TIES)):
            if value not in allowed:
                raise ValueError(f"{key}={value}: allowed are {', '.join(allowed)}.")
        if not 0 <= self.tie_width < 0.5:
            raise ValueError(f"tie_width={self.tie_width}: it is in [0, 0.5).")
        if self.clip is not None and not (len(self.clip) == 2 and 0 <= self.clip[0] <= 0.5 <= self.clip[1] <= 1):
            raise ValueError(f"clip={self.clip}: give [low, high] with 0 <= low <= 0.5 <= high <= 1.")

    def displays(self, pairs: Callable[[], Iterable[Pair]], judge: Judge) -> Iterator[Display]:
        """What the judge sees; pairs of the same text are not shown."""
        return verdicts.displays(judge, map(_display, pairs()))

    def labels(
        self, pairs: Callable[[], Iterable[Pair]], judge: Judge, total: int | None = None, tolerant: bool = False
    ) -> Iterator[Label]:
        """One label a pair, in the order of the pairs. pairs: called several times. total: pairs, for progress."""
        orders = 2 if judge.both_orders and judge.sees_order else 1
        judge.prepare(lambda: self.displays(pairs, judge), total and total * orders, tolerant)
        return (self._label(pair, judge) for pair in pairs())

    def _label(self, pair: Pair, judge: Judge) -> Label:
        result = verdicts.judgement(judge, _display(pair))
        if not result.preferences:
            return Label(pair, IDENTICAL, 0.5)
        known = {**result.preferences, "mass": result.mass, "evidence": result.evidence}
        if None in result.preferences.values():
            return Label(pair, UNPARSABLE, None, **known)
        preference = self._average(list(result.preferences.values()))
        if self.clip:
            preference = min(max(preference, self.clip[0]), self.clip[1])
        status = TIE if abs(preference - 0.5) < self.tie_width else LABEL
        return Label(pair, status, preference, **known, scores=result.scores)

    def _average(self, seen: list[float]) -> float:
        if self.average == "arithmetic":
            return sum(seen) / len(seen)
        kept = [min(max(p, EDGE), 1 - EDGE) for p in seen]
        return sigmoid(sum(math.log(p / (1 - p)) for p in kept) / len(kept))

    def trains(self, label: Label) -> bool:
        """Whether the label becomes a row to train on."""
        return label.status == LABEL or (label.status == TIE and self.ties == "soft")


def _display(pair: Pair) -> Display:
    return Display(pair.prompt, pair.first, pair.second)
