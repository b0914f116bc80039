"""The interface of all judges, for win rates, labels and rewards alike, and the judge of recorded scores."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rlhf_trl_ext.judging import verdicts
from rlhf_trl_ext.judging.verdicts import Display, Displays, Opinion, Reply, Verdict, finite

FAIR = ("gold_reward", "held_out_reward")  # scores that no policy trained for, best first
Replies = Callable[[], Iterable[Reply]]


class Score(NamedTuple):
    """value: a reply's score, None where nothing could be read. mass, evidence: see `Opinion`."""

    value: float | None
    mass: float | None = None
    evidence: dict | None = None


class Judge:
    """Compares two replies (`opinion`), or scores each alone (`score`, with scores_alone) and compares the scores.

    name, notices, cost: for the report. both_orders: whether a pair is shown in both, for judges that see an order.
    scores_alone: such judges see no order, and `P(first is better) = sigmoid((s_1 - s_2) / temperature)`. scale: lowest
    and highest score, None without bounds. recorded: it reads scores that samples carry, and can judge nothing else.
    max_unreadable: the share of unreadable verdicts above which a run ends with an error. may_answer_later: whether a
    question without an answer may get one when it is asked again.
    """

    name: str
    both_orders = True
    scores_alone = False
    temperature = 1.0
    scale: tuple[float, float] | None = None
    recorded = may_answer_later = False
    max_unreadable = 0.25
    notices: list[str] = []
    cost: dict = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0}

    @property
    def sees_order(self) -> bool:
        """Whether the order of the two replies can matter."""
        return not self.scores_alone

    def check(self) -> None:
        """Raises ValueError when the judge cannot work, before anything is asked."""

    def preview(self, displays: Displays) -> dict:
        """What asking would take; nothing is asked."""
        return {"requests": 0, "usd": 0.0}

    def prepare(self, displays: Displays, total: int | None = None, tolerant: bool = False) -> None:
        """Ask whatever `opinion` needs. displays: called once a pass. total: for progress.

        tolerant: failures only become unreadable, however many they are.
        """
        if self.scores_alone:
            replies = lambda: (reply for display in displays() for reply in display.replies)  # noqa: E731
            self.prepare_scores(replies, total and 2 * total, tolerant)

    def opinion(self, display: Display) -> Opinion:
        """The opinion about a display that was prepared."""
        if not self.scores_alone:
            raise NotImplementedError
        scores = [self.score(reply) for reply in display.replies]
        a, b = (finite(score.value) for score in scores)
        mass = min((score.mass for score in scores if score.mass is not None), default=None)
        evidence = {"scored": [score.evidence for score in scores]} if any(s.evidence for s in scores) else None
        if a is None or b is None:
            return Opinion(None, mass, evidence=evidence)
        return Opinion(sigmoid((a - b) / self.temperature), mass, (a, b), evidence)

    def prepare_scores(self, replies: Replies, total: int | None = None, tolerant: bool = False) -> None:
        """Ask whatever `score` needs. replies: called once a pass."""

    def score(self, reply: Reply) -> Score:
        """The score of a reply that was prepared."""
        raise NotImplementedError

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """One verdict per pair; samples are rows of `launchers.generate`."""
        return verdicts.compare(self, first, second)


def sigmoid(x: float) -> float:
    """`1 / (1 + exp(-x))`, without overflow."""
    return 0.5 * (1 + math.tanh(x / 2))


def check_temperature(temperature: float, unit: str) -> None:
    """Raises ValueError unless it is above 0 and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}: it is above 0, in {unit}.")


def check_judges_text(judge: Judge, use: str) -> None:
    """Raises ValueError for a judge of recorded scores, which knows nothing of new texts."""
    if judge.recorded:
        raise ValueError(
            f"judge=score reads scores that samples carry, and {use} have none: use judge=reward_model "
            "judge.path=<folder or hub id>, or another judge."
        )


class ScoreJudge(Judge):
    """Prefers the higher recorded score: `gold_reward`, `held_out_reward`, or `reward` of the trained reward model.

    field: None takes the first of these that samples of the first comparison have. Scores that are missing or no finite
    numbers are unreadable.
    """

    scores_alone = recorded = True
    max_unreadable = 1.0  # nothing is asked

    def __init__(self, field: str | None = None):
        self.field = field
        self.name = field or "score"

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`. Raises ValueError where all samples of one side have no such score."""
        if self.field is None:
            known = {name for row in (*first, *second) for name in FAIR if row.get(name) is not None}
            self.field = self.name = next((name for name in FAIR if name in known), "reward")
        lacking = [sum(row.get(self.field) is None for row in rows) for rows in (first, second)]
        if lacking[0] == len(first) or lacking[1] == len(second):
            raise ValueError(
                f"judge.field={self.field}: {sum(lacking)} of {len(first) + len(second)} samples have no such score: "
                "use judge=reward_model judge.path=<folder or hub id>, or samples of a dataset with a gold reward."
            )
        return verdicts.by_score(*([row.get(self.field) for row in rows] for rows in (first, second)))
