"""Tables as records: csv and tsv, their marks, and cells that hold more than text."""

import ast
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from rlhf_trl_ext.data.schema import BadRow

# Columns whose cells are lists and objects; any other cell is text, unless it holds turns.
NESTED = ("reward_model", "metadata", "input", "history", "completions", "generations", "ratings", "rating", "labels")
TURNS = re.compile(r"""\[?\s*\{\s*["'](?:role|from|content|value)["']\s*:""")


def table_records(stream: IO[bytes], name: str, kind: str) -> Iterator[tuple[str, Any]]:
    """Rows of a table by the names in its first line; cells are text, JSON in a cell (as pandas writes it) is read."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    head = next((line for line in text if line.strip()), None)
    if head is None:
        return
    if head.lstrip().startswith("{"):
        raise ValueError(f"path={name} holds JSON, no table: let its name end in .jsonl or .json.")
    counts = {mark: head.count(mark) for mark in (",", "\t", ";", "|")}
    mark = "\t" if kind == ".tsv" else max(counts, key=counts.get)
    csv.field_size_limit(2**31 - 1)
    spaced = f"{mark} " in head
    rows = csv.DictReader(itertools.chain([head], text), delimiter=mark, strict=True, skipinitialspace=spaced)
    try:
        names = rows.fieldnames
        if twice := [column for column in names if column and names.count(column) > 1]:
            raise ValueError(f"path={name} has two columns called {twice[0]}: give each a name of its own.")
        for row in rows:
            if None in row or None in row.values():
                yield f"{name}:{rows.line_num}", BadRow("a row with another number of cells than the first line")
            else:
                yield f"{name}:{rows.line_num}", _read(row)
    except csv.Error as error:
        raise ValueError(f"path={name}:{rows.line_num}: {error}; mend the quotes.") from error


def _read(row: dict[str, str]) -> dict | BadRow:
    try:
        return {column: _cell(column, value) for column, value in row.items()}
    except BadRow as error:
        return error


def _cell(column: str, value: str) -> Any:
    """A cell's text, None where it is empty; turns, and what stands in a column of `NESTED`, are read.

    Lists and objects are written as JSON, or as Python writes them (pandas' `to_csv`). Raises BadRow for turns that
    cannot be read, as numpy writes them.
    """
    if not (value[:1] in "[{" and value[-1:] in "]}" and value):
        return value or None
    turns = TURNS.match(value)
    if not turns and column not in NESTED:
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if turns:
        raise BadRow("turns in a cell that are neither JSON nor Python: save the table as jsonl or parquet")
    return value
