"""JSON as records: one a line, an array, an object that holds one, or objects behind each other."""

import json
from collections.abc import Iterator
from typing import IO, Any

from rlhf_trl_ext.data.schema import BadRow

BUFFER = 2**20  # bytes that are looked at to tell lines from a document


def is_lines(stream: IO[bytes], kind: str) -> bool:
    """Whether a file holds a record a line, rather than one document. Leaves the stream where it was.

    kind: its ending; .json may be either, and .jsonl is a document where it begins with an array of objects.
    """
    beginning = stream.peek(BUFFER).removeprefix(b"\xef\xbb\xbf").lstrip()
    first, newline, rest = beginning.partition(b"\n")
    if beginning.startswith(b"["):
        return kind != ".json" and not beginning[1:].lstrip().startswith(b"{")
    if kind != ".json":
        return True
    try:
        return isinstance(json.loads(first), dict) and bool(newline and rest.strip())
    except ValueError:
        # a broken first line among whole ones, or the beginning of a document
        return first.rstrip().endswith(b"}") and first.startswith(b"{") and bool(rest.strip())


def line_records(stream: IO[bytes], name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # bytes that are not UTF-8 raise a ValueError as well
            record = BadRow("broken JSON line")
        yield f"{name}:{number}", record


def document_records(stream: IO[bytes], name: str) -> Iterator[tuple[str, Any]]:
    """Records of a JSON array, of an object that holds one, or of objects behind each other, pretty-printed or not.

    They are decoded one by one, because only so the line of each is known.
    """
    text = stream.read().decode("utf-8-sig", errors="surrogateescape")  # bad bytes then make their own record bad
    if (columns := _columns(text)) is not None:
        yield from ((f"{name}:{number}", row) for number, row in enumerate(columns, start=1))
        return
    start = _array(text, name)
    decoder, position = json.JSONDecoder(), start + 1 if start is not None else 0
    line = 1 + text.count("\n", 0, position)

    def skip(characters: str) -> None:
        nonlocal line, position
        while position < len(text) and text[position] in characters:
            line += text[position] == "\n"
            position += 1

    skip(" \t\r\n")
    while text[position : position + 1] not in ("]", ""):
        try:
            record, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"path={name}:{error.lineno} is not valid JSON ({error.msg}): mend it, or give one record per "
                "line, where a broken one is left out and counted."
            ) from error
        yield f"{name}:{line}", record
        line, position = line + text.count("\n", position, end), end
        skip(" \t\r\n,")
    if start is not None and position >= len(text):
        raise ValueError(f"path={name} ends within its JSON array: copy or download it again.")
    if text.lstrip("\ufeff \t\r\n").startswith("[") and text[position + 1 :].strip():
        raise ValueError(f"path={name}:{line} goes on after its JSON array: give one array, or one record per line.")


def _array(text: str, name: str) -> int | None:
    """Where the array of records begins: the document itself, or the one list of objects in it; None: no array.

    Raises ValueError where several lists of objects could be meant.
    """
    if text.lstrip().startswith("["):
        return text.index("[")
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict):
        raise ValueError(f"path={name} holds {type(document).__name__} instead of records: give an array of objects.")
    lists = [key for key, value in document.items() if isinstance(value, list) and value and _objects(value)]
    if not lists or any(key in document for key in ("chosen", "messages", "prompt", "conversations")):
        return None
    if len(lists) > 1:
        raise ValueError(f"path={name} holds {', '.join(lists)}: give a file with one of them.")
    return text.index("[", text.index(json.dumps(lists[0])))


def _columns(text: str) -> list[dict] | None:
    """Rows of a document that holds columns or rows by name, as pandas' `to_json` writes them; else None."""
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    values = list(document.values()) if isinstance(document, dict) and len(document) > 1 else []
    if values and all(isinstance(value, dict) and value.keys() == values[0].keys() and value for value in values):
        if not all(name.isdigit() for name in values[0]):
            return None if {"content", "value"} & values[0].keys() else values  # one record, of turns
        return [{name: column[row] for name, column in document.items()} for row in values[0]]
    lists = all(isinstance(value, list) and len(value) == len(values[0]) > 1 for value in values)
    if values and lists and not any(_objects(value) for value in values):
        return [dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)]
    return None


def _objects(value: list) -> bool:
    return all(isinstance(item, dict) for item in value)
