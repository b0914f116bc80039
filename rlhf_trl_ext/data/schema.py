"""The columns of the views, and the checks that a record passes before it becomes a row.

A turn is {"role": "user" | "assistant" | "system", "content": str}. A prompt is a list of turns that ends with the
user's; a completion is a list of one assistant turn.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

Turn = dict[str, str]
Row = dict[str, list[Turn]]

VIEWS = {
    "demonstrations": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
    "prompts": ("prompt",),
    "unpaired": ("prompt", "completion", "label"),
}


class BadRow(ValueError):
    """A malformed record. reason: a few words without the record's own text, because records are counted by it."""

    @property
    def reason(self) -> str:
        return str(self)


class NoRow(Exception):
    """A well-formed record that has no row in this view, such as a score tie. Counted by reason, never as bad."""

    @property
    def reason(self) -> str:
        return str(self)


def features(columns: Iterable[str]) -> Any:
    """The `datasets.Features` of columns: text and solution are text, label is a truth value, all others are turns."""
    from datasets import Features, List, Value

    turns = List({"role": Value("string"), "content": Value("string")})
    others = {"text": Value("string"), "solution": Value("string"), "label": Value("bool")}
    return Features({column: others.get(column, turns) for column in columns})


def typed_field(record: Any, name: str, *allowed: type) -> Any:
    """record[name]. Raises BadRow if the record is no object, or the field is missing, null or of another type."""
    if not isinstance(record, dict):
        raise BadRow(f"wrong type: {type(record).__name__} instead of an object")
    value = record.get(name)
    if value is None:
        raise BadRow(f"missing field {name}")
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise BadRow(f"wrong type: {name} is {type(value).__name__}")
    return value


def number_field(record: Any, name: str) -> float:
    """record[name] as a finite number, which may be written as text. Raises BadRow for anything else."""
    value = typed_field(record, name, int, float, str)
    try:
        number = float(value)
    except ValueError:
        raise BadRow(f"wrong type: {name} is no number") from None
    if not math.isfinite(number):
        raise BadRow(f"wrong type: {name} is not finite")
    return number


def text_field(record: Any, name: str) -> str:
    """A string field that says something. Raises BadRow if missing, not a string, blank or not valid Unicode."""
    value = typed_field(record, name, str)
    if not value.strip():
        raise BadRow("empty turn")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"invalid Unicode in {name}") from None  # a lone surrogate, or bytes that are no UTF-8
    return value


def user(content: str) -> Turn:
    """The user's turn."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Turn:
    """The assistant's turn."""
    return {"role": "assistant", "content": content}


def conversation(turns: list) -> list[Turn]:
    """The turns with role and content only: an optional system turn, then user and assistant in alternation.

    Raises BadRow for a wrong type, an empty turn, an unknown role, two roles in a row, a first turn that is not the
    user's or a last one that is not the assistant's.
    """
    clean = [{"role": typed_field(turn, "role", str), "content": text_field(turn, "content")} for turn in turns]
    roles = [turn["role"] for turn in clean]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    if not set(roles) <= {"user", "assistant"}:
        raise BadRow("unknown role")
    if any(role == following for role, following in pairwise(roles)):
        raise BadRow("two roles in a row")
    if roles[:1] != ["user"]:
        raise BadRow("first turn is not the user's")
    if roles[-1] != "assistant":
        raise BadRow("last turn is not the assistant's")
    return clean


def pair(chosen: list, rejected: list) -> Row:
    """A preferences row of two whole conversations that differ in the last turn only.

    Raises BadRow for what `conversation` refuses, for different prompts, and for chosen == rejected (surrounding
    space aside).
    """
    chosen, rejected = conversation(chosen), conversation(rejected)
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("chosen and rejected have different prompts")
    if chosen[-1]["content"].strip() == rejected[-1]["content"].strip():
        raise BadRow("chosen == rejected")
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def pair_as(view: str, row: Row) -> Iterator[Row]:
    """A preferences row seen in a view; the chosen reply is the demonstration."""
    if view == "demonstrations":
        row = {"prompt": row["prompt"], "completion": row["chosen"]}
    yield {column: row[column] for column in VIEWS[view]}
