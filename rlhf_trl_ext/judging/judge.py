"""Judges decide which of two completions of a prompt is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a judge said about one pair; None where it said nothing that could be read.

    outcome: 1 where the first sample given is better, 0 where the second is, 0.5 for a tie.
    preference: probability in [0, 1] that the first sample is better, where the judge gives one, else the outcome.
    shown_first, shown_second: the outcome when the first sample stood first, and second, for judges that see an order.
    scores: of the two samples, for judges that score each alone.
    """

    outcome: float | None
    preference: float | None = None
    shown_first: float | None = None
    shown_second: float | None = None
    scores: tuple[float, float] | None = None


class Judge:
    """A judge has a `name` and compares samples of the same prompt, pair by pair.

    notices: sentences about how it judged, for the report.
    """

    name: str
    notices: list[str] = []

    def check(self) -> None:
        """Raises ValueError when the judge cannot work, before anything is asked."""

    def preview(self, pairs: list[tuple[list[dict], list[dict]]]) -> dict:
        """What judging these pairs of samples would take; nothing for judges that ask nobody."""
        return {"requests": 0, "usd": 0.0}

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """One verdict per pair; samples are rows of `launchers.generate`."""
        raise NotImplementedError


class ScoreJudge(Judge):
    """Prefers the higher recorded score: `gold_reward` of the embedded task, or `reward` of the reward model.

    field: None takes the gold reward where all samples of the first comparison have one, else the reward.
    """

    def __init__(self, field: str | None = None):
        self.field = field
        self.name = field or "score"

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`. Raises ValueError when a sample has no such score."""
        if self.field is None:
            has_gold = all(row.get("gold_reward") is not None for row in [*first, *second])
            self.field = self.name = "gold_reward" if has_gold else "reward"
        lacking = sum(row.get(self.field) is None for row in [*first, *second])
        if lacking:
            raise ValueError(
                f"judge.field={self.field}: {lacking} of {len(first) + len(second)} samples have no such score; "
                "use judge=reward_model, or samples of a dataset with a gold reward."
            )
        return by_score([row[self.field] for row in first], [row[self.field] for row in second])


class RewardModelJudge(Judge):
    """Prefers what a reward model scores higher: any sequence classifier with one label, by folder or hub id."""

    def __init__(self, path: str, batch_size: int = 64, dtype: str = "float32"):
        self.path, self.batch_size, self.dtype = path, batch_size, dtype
        self.name = f"reward_model:{path}"

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`."""
        from rlhf_trl_ext.rewards.model import RewardModel

        model = RewardModel(self.path, self.batch_size, self.dtype)
        rows = [*first, *second]
        answers = [[{"role": "assistant", "content": row["completion"]}] for row in rows]
        scores = model([row["prompt"] for row in rows], answers)
        return by_score(scores[: len(first)], scores[len(first) :])


def by_score(first: list[float | None], second: list[float | None]) -> list[Verdict]:
    """Verdicts of a judge that scores each answer alone: the higher score wins, equal ones tie, None is unreadable."""
    verdicts = []
    for a, b in zip(first, second, strict=True):
        outcome = None if a is None or b is None else (a > b) + 0.5 * (a == b)
        verdicts.append(Verdict(outcome, outcome, scores=None if outcome is None else (a, b)))
    return verdicts
