"""From opinions about displays to verdicts on pairs: both orders, ties of equal texts, what could not be read."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

SHOWN_FIRST, SHOWN_SECOND = "shown_first", "shown_second"


class Reply(NamedTuple):
    """A reply to a prompt (text or messages). sample: the other columns of the row that it came from, if it has one."""

    prompt: str | list[dict]
    text: str
    sample: dict | None = None


class Display(NamedTuple):
    """Two replies to a prompt as a judge sees them, in this order. samples: the rows that they came from, if any."""

    prompt: str | list[dict]
    first: str
    second: str
    samples: tuple[dict, dict] | None = None

    @property
    def identity(self) -> str:
        """The pair whatever the order, as text."""
        return json.dumps([self.prompt, *sorted((self.first, self.second))])

    @property
    def equal(self) -> bool:
        """Whether both replies are the same but for surrounding blanks; such a pair ties and is not shown."""
        return self.first.strip() == self.second.strip()

    @property
    def turned(self) -> "Display":
        """The same pair in the other order."""
        return Display(self.prompt, self.second, self.first, self.samples and self.samples[::-1])

    @property
    def replies(self) -> tuple[Reply, Reply]:
        """Both replies alone, in this order."""
        samples = self.samples or (None, None)
        return Reply(self.prompt, self.first, samples[0]), Reply(self.prompt, self.second, samples[1])


class Opinion(NamedTuple):
    """preference: probability that what stands first is better, None where nothing could be read.

    mass: probability of all verdicts together, None where unknown. scores: of both, for judges that score each alone.
    evidence: what the judge wrote, by which principle, or why there is nothing to read.
    """

    preference: float | None
    mass: float | None = None
    scores: tuple[float, float] | None = None
    evidence: dict | None = None


Displays = Callable[[], Iterable[Display]]


@dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one pair of samples; None where it gave none that could be read.

    outcome: 1 where the first sample given is better, 0 where the second is, 0.5 for a tie.
    preference: probability in [0, 1] that the first sample is better, where the judge gives one, else the outcome.
    shown_first, shown_second: the outcome when the first sample stood first, and second, for judges that see an order.
    scores: of the two samples, for judges that score each alone. mass: the least of both orders. evidence: of each
    order that was shown.
    """

    outcome: float | None
    preference: float | None = None
    shown_first: float | None = None
    shown_second: float | None = None
    scores: tuple[float, float] | None = None
    mass: float | None = None
    evidence: tuple[dict, ...] | None = None


class Judgement(NamedTuple):
    """Opinions about a pair in every order that it was shown in.

    preferences: by order, probability that the pair's first reply is better, None where unreadable. Empty for equal
    replies, which are not shown.
    """

    preferences: dict[str, float | None]
    mass: float | None = None
    scores: tuple[float, float] | None = None
    evidence: tuple[dict, ...] = ()


def finite(value) -> float | None:
    """The number itself; None for NaN, infinities and everything that is no number."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def orders(judge, pair: Display) -> dict[str, Display]:
    """What the judge sees of a pair, by what stands first: both orders where it can matter and is wanted.

    In one order only, which one is a hash of the pair. Nothing for equal replies.
    """
    if pair.equal:
        return {}
    if judge.both_orders and judge.sees_order:
        return {SHOWN_FIRST: pair, SHOWN_SECOND: pair.turned}
    parity = hashlib.sha256(pair.identity.encode()).digest()[0] % 2
    # the draw is between two texts, so that exchanging the sides shows the same display
    if judge.sees_order and parity == (pair.first < pair.second):
        return {SHOWN_SECOND: pair.turned}
    return {SHOWN_FIRST: pair}


def displays(judge, pairs: Iterable[Display]) -> Iterator[Display]:
    """All displays of pairs."""
    return (display for pair in pairs for display in orders(judge, pair).values())


def judgement(judge, pair: Display) -> Judgement:
    """What a judge that is prepared thinks of a pair. Numbers that are not finite are unreadable."""
    opinions = {order: judge.opinion(display) for order, display in orders(judge, pair).items()}
    preferences = {order: finite(opinion.preference) for order, opinion in opinions.items()}
    if preferences.get(SHOWN_SECOND) is not None:
        preferences[SHOWN_SECOND] = 1 - preferences[SHOWN_SECOND]
    masses = [opinion.mass for opinion in opinions.values() if finite(opinion.mass) is not None]
    scores = opinions[SHOWN_FIRST].scores if SHOWN_FIRST in opinions else None
    evidence = tuple(opinion.evidence for opinion in opinions.values() if opinion.evidence)
    return Judgement(preferences, min(masses, default=None), scores, evidence)


def compare(judge, first: list[dict], second: list[dict], tolerant: bool = False) -> list[Verdict]:
    """One verdict per pair of samples, rows of `launchers.generate`. tolerant: see `Judge.prepare`.

    Raises ValueError for rows without completion.
    """
    pairs = sample_pairs(first, second)
    total = sum(len(orders(judge, pair)) for pair in pairs)
    judge.prepare(lambda: displays(judge, pairs), total, tolerant)
    return [verdict(judge, pair) for pair in pairs]


def preview(judge, games: list[tuple[list[dict], list[dict]]]) -> dict:
    """What judging these pairs of samples would take; nothing is asked."""
    if judge.recorded:
        return judge.preview(lambda: ())
    pairs = [pair for first, second in games for pair in sample_pairs(first, second)]
    return judge.preview(lambda: displays(judge, pairs))


def sample_pairs(first: list[dict], second: list[dict]) -> list[Display]:
    """Samples as pairs, row by row."""
    if lacking := sum("completion" not in row for row in (*first, *second)):
        raise ValueError(
            f"{lacking} of {len(first) + len(second)} samples have no completion: the judge needs the text."
        )
    rows = zip(first, second, strict=True)
    return [Display(a["prompt"], a["completion"], b["completion"], (a, b)) for a, b in rows]


def verdict(judge, pair: Display) -> Verdict:
    """The verdict on a pair; orders that disagree tie, and equal replies do."""
    result = judgement(judge, pair)
    if not result.preferences:
        return Verdict(0.5, 0.5)
    known = {"scores": result.scores, "mass": result.mass, "evidence": result.evidence or None}
    if not judge.sees_order:
        (preference,) = result.preferences.values()
        return Verdict(None if preference is None else outcome(preference, result.scores), preference, **known)
    preferences = (result.preferences.get(order) for order in (SHOWN_FIRST, SHOWN_SECOND))
    return combine(*preferences, orders=len(result.preferences), **known)


def outcome(preference: float, scores: tuple[float, float] | None = None) -> float:
    """1, 0 or 0.5 for a tie; by the scores where there are some, which a sigmoid may round to one half."""
    a, b = scores or (preference, 0.5)
    return float((a > b) + 0.5 * (a == b))


def combine(shown_first: float | None, shown_second: float | None, orders: int, **known) -> Verdict:
    """A verdict from the probabilities that a sample is better, seen when it stood first and second.

    orders: in how many orders the pair was judged; a pair with an unreadable answer has no outcome.
    """
    preferences = [p for p in (shown_first, shown_second) if p is not None]
    outcomes = [None if p is None else outcome(p) for p in (shown_first, shown_second)]
    if len(preferences) < orders:
        return Verdict(None, None, *outcomes, **known)
    decided = {value for value in outcomes if value is not None}
    decision = decided.pop() if len(decided) == 1 else 0.5
    return Verdict(decision, sum(preferences) / len(preferences), *outcomes, **known)


def by_score(first: list[float | None], second: list[float | None]) -> list[Verdict]:
    """Verdicts of scores: the higher one wins, equal ones tie, what is no finite number is unreadable."""
    verdicts = []
    for a, b in zip(map(finite, first), map(finite, second), strict=True):
        decision = None if a is None or b is None else outcome(0.5, (a, b))
        verdicts.append(Verdict(decision, decision, scores=None if decision is None else (a, b)))
    return verdicts


def check_readable(judge, unreadable: int, total: int, where: str) -> None:
    """Raises ValueError when more verdicts are unreadable than `judge.max_unreadable` allows."""
    if total and unreadable / total > judge.max_unreadable:
        raise ValueError(
            f"judge.max_unreadable={judge.max_unreadable} is exceeded: {unreadable} of {total} verdicts "
            f"({unreadable / total:.1%}) could not be read, see {where}; mend the prompt or the judge, or raise it."
        )
