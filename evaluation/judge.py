"""Judges decide which of two completions of a prompt is better."""

from typing import Protocol


class Judge(Protocol):
    """A judge has a `name` and compares samples of the same prompt, pair by pair."""

    name: str

    def compare(self, first: list[dict], second: list[dict]) -> list[float]:
        """1 where `first` is better, 0 where `second` is, 0.5 for a tie; samples are rows of `launchers.generate`."""
        ...


class ScoreJudge:
    """Prefers the higher recorded score: `gold_reward` of the embedded task, or `reward` of the reward model."""

    def __init__(self, field: str):
        self.field = field
        self.name = field

    def compare(self, first: list[dict], second: list[dict]) -> list[float]:
        """See `Judge.compare`. Raises ValueError when a sample has no such score."""
        lacking = sum(row.get(self.field) is None for row in [*first, *second])
        if lacking:
            raise ValueError(
                f"judge.field={self.field}: {lacking} of {len(first) + len(second)} samples have no such score; "
                "use judge=reward_model, or samples of a dataset with a gold reward."
            )
        return [
            (a[self.field] > b[self.field]) + 0.5 * (a[self.field] == b[self.field])
            for a, b in zip(first, second, strict=True)
        ]
