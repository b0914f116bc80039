"""From opinions about displays to labels of pairs: both orders, ties, what could not be read."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_trl_ext.judging.labellers import Display, Labeller, sigmoid

AVERAGES, TIES = ("arithmetic", "logit"), ("drop", "soft")
LABEL, TIE, IDENTICAL, UNPARSABLE = "label", "tie", "identical", "unparsable"
EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before their logits are averaged


class Pair(NamedTuple):
    """Two replies to a prompt. known: 1 where the first is better by human or gold labels, 0 or 0.5, None if unknown.

    `known` is for the report and reaches no labeller.
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

    both_orders: every pair is shown as A, B and as B, A; otherwise in one order, a hash of the pair. average:
    arithmetic, `(p_AB + p_BA) / 2`, p being the first reply's probability, or logit, the mean of both logits, from
    which a bias that adds to the logit vanishes exactly. tie_width: a label ties where `|p - 1/2|` is below it; ties:
    they are dropped, or kept soft. clip: probabilities are brought into this interval, such as [0.4, 0.6] after a chain
    of thought (arXiv:2212.08073). max_unparsable: the share above which the run ends with an error.
    Raises ValueError for a value that is not allowed.
    """

    both_orders: bool = True
    average: str = "arithmetic"
    ties: str = "drop"
    tie_width: float = 0.05
    clip: list[float] | None = None
    max_unparsable: float = 0.02

    def __post_init__(self) -> None:
        for key, value, allowed in (("average", self.average, AVERAGES), ("ties", self.ties, TIES)):
            if value not in allowed:
                raise ValueError(f"{key}={value}: allowed are {', '.join(allowed)}.")
        if not 0 <= self.tie_width < 0.5 or not 0 <= self.max_unparsable <= 1:
            raise ValueError(
                f"tie_width={self.tie_width}, max_unparsable={self.max_unparsable}: in [0, 0.5) and in [0, 1]."
            )
        if self.clip is not None and not (len(self.clip) == 2 and 0 <= self.clip[0] <= 0.5 <= self.clip[1] <= 1):
            raise ValueError(f"clip={self.clip}: give [low, high] with 0 <= low <= 0.5 <= high <= 1.")

    def displays(self, pairs: Callable[[], Iterable[Pair]], labeller: Labeller) -> Iterator[Display]:
        """What the labeller sees; pairs of the same text are not shown."""
        return (d for pair in pairs() if not _identical(pair) for d in self._orders(pair, labeller).values())

    def labels(
        self, pairs: Callable[[], Iterable[Pair]], labeller: Labeller, total: int | None = None, tolerant: bool = False
    ) -> Iterator[Label]:
        """One label a pair, in the order of the pairs. pairs: called several times. total: pairs, for progress."""
        orders = 2 if self.both_orders and labeller.sees_order else 1
        labeller.prepare(lambda: self.displays(pairs, labeller), total and total * orders, tolerant)
        return (self._label(pair, labeller) for pair in pairs())

    def _orders(self, pair: Pair, labeller: Labeller) -> dict[str, Display]:
        """By what stands first: both orders where it can matter and is wanted."""
        shown = {
            "shown_first": Display(pair.prompt, pair.first, pair.second),
            "shown_second": Display(pair.prompt, pair.second, pair.first),
        }
        if self.both_orders and labeller.sees_order:
            return shown
        drawn = hashlib.sha256(shown["shown_first"].identity.encode()).digest()[0] % 2
        only = "shown_second" if drawn and labeller.sees_order else "shown_first"
        return {only: shown[only]}

    def _label(self, pair: Pair, labeller: Labeller) -> Label:
        if _identical(pair):
            return Label(pair, IDENTICAL, 0.5)
        found = {order: labeller.opinion(display) for order, display in self._orders(pair, labeller).items()}
        seen = {order: opinion.preference for order, opinion in found.items()}
        masses = [opinion.mass for opinion in found.values() if opinion.mass is not None]
        known = {"mass": min(masses, default=None)}
        known["evidence"] = tuple(opinion.evidence for opinion in found.values() if opinion.evidence)
        if seen.get("shown_second") is not None:
            seen["shown_second"] = 1 - seen["shown_second"]
        if None in seen.values():
            return Label(pair, UNPARSABLE, None, **seen, **known)
        preference = self._average(list(seen.values()))
        if self.clip:
            preference = min(max(preference, self.clip[0]), self.clip[1])
        status = TIE if abs(preference - 0.5) < self.tie_width else LABEL
        scores = found["shown_first"].scores if "shown_first" in found else None
        return Label(pair, status, preference, **seen, **known, scores=scores)

    def _average(self, seen: list[float]) -> float:
        if self.average == "arithmetic":
            return sum(seen) / len(seen)
        kept = [min(max(p, EDGE), 1 - EDGE) for p in seen]
        return sigmoid(sum(math.log(p / (1 - p)) for p in kept) / len(kept))

    def trains(self, label: Label) -> bool:
        """Whether the label becomes a row to train on."""
        return label.status == LABEL or (label.status == TIE and self.ties == "soft")


def _identical(pair: Pair) -> bool:
    return pair.first.strip() == pair.second.strip()
