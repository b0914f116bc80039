"""The count of what became of every record, told in one line."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

LOCATIONS = 3


@dataclass
class Tally:
    """read, bad and absent count records; the others count rows, of which a record may give none or several.

    bad: reason -> locations of the records; absent: reason -> records that rightly have no row in the view.
    """

    read: int = 0
    bad: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    absent: Counter = field(default_factory=Counter)
    other_splits: int = 0
    duplicates: int = 0
    too_long: int = 0
    surplus: int = 0
    rows: int = 0

    @property
    def bad_records(self) -> int:
        """How many records are malformed."""
        return sum(map(len, self.bad.values()))

    def bad_by_reason(self) -> str:
        """'empty turn 4 [a.jsonl:87, a.jsonl:517, a.jsonl:926, ...], ...', the most frequent reason first."""
        ordered = sorted(self.bad.items(), key=lambda item: (-len(item[1]), item[0]))
        return ", ".join(
            f"{reason} {len(where)} [{', '.join(where[:LOCATIONS])}{', ...' if len(where) > LOCATIONS else ''}]"
            for reason, where in ordered
        )

    def describe(self) -> str:
        """One line with every count that is not 0."""
        parts = [f"{self.bad_records} bad: {self.bad_by_reason()}"] if self.bad else []
        parts += [f"{number} {reason}" for reason, number in sorted(self.absent.items())]
        counts = (
            (self.other_splits, "rows of other splits"),
            (self.duplicates, "duplicate rows"),
            (self.too_long, "rows too long"),
            (self.surplus, "rows over max_samples"),
        )
        parts += [f"{number} {name}" for number, name in counts if number]
        return f"{self.rows} rows from {self.read} records ({'; '.join(parts) or 'nothing left out'})"
