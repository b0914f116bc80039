"""Feedback: what a person says of one answer."""

import hashlib
import json
from dataclasses import dataclass

THUMBS, RATINGS = ("up", "down"), range(1, 6)
KINDS = ("thumb", "rating", "preferred_over", "edit")
FORM = (
    'give {"id": <answer>} with one of "thumb": "up" or "down", "rating": 1 to 5, "preferred_over": <other answer>, '
    '"edit": <better text>; "user" names who says so'
)


@dataclass(frozen=True)
class Feedback:
    """answer: its id. kind, value: thumb (up, down), rating (1 to 5), preferred_over (an id), edit (a text)."""

    answer: str
    kind: str
    value: str | int
    person: str | None = None

    @property
    def id(self) -> str:
        """The same for the same words of the same person, so that posting twice stores once."""
        content = json.dumps([self.answer, self.kind, self.value, self.person])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def parse(body) -> Feedback:
    """Feedback from a request's JSON. Raises ValueError with a sentence for anything else."""
    if not isinstance(body, dict) or not isinstance(body.get("id"), str):
        raise ValueError(f"feedback without id: {FORM}.")
    if unknown := set(body) - {"id", "user", *KINDS}:
        raise ValueError(f"{sorted(unknown)[0]}: no such field of feedback; {FORM}.")
    kinds = [kind for kind in KINDS if kind in body]
    if len(kinds) != 1:
        raise ValueError(f"{len(kinds)} kinds of feedback in one request: {FORM}.")
    kind, value, person = kinds[0], body[kinds[0]], body.get("user")
    allowed = {
        "thumb": lambda: value in THUMBS,
        "rating": lambda: type(value) is int and value in RATINGS,
        "preferred_over": lambda: isinstance(value, str) and value != body["id"],
        "edit": lambda: isinstance(value, str) and bool(value.strip()),
    }
    if not allowed[kind]() or not isinstance(person, str | None):
        raise ValueError(f"{kind}: a value that is not allowed; {FORM}.")
    return Feedback(body["id"], kind, value, person)
