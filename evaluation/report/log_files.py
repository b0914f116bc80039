"""Files that runs append to, read as a page needs them: the end, or evenly spaced lines, whatever their size."""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlhf_trl_ext.callbacks.records import as_row

MOST = 3_000  # lines that are given of a file at once
WHOLE = 2**21  # bytes that are read line by line
CHUNK = 2**24
RARE = re.compile(rb'"eval_')  # evaluations, which evenly spaced lines would miss


def rows_after(path: Path, offset: int, most: int = MOST) -> tuple[list[dict], int]:
    """Rows of the whole lines from byte `offset` on, and the byte after them.

    Of more than 2 MiB, `most` evenly spaced rows and as many of those that hold an evaluation; so that time and memory
    hardly grow with the file.
    """
    end = _last_newline(path)
    with path.open("rb") as file:
        if end - offset <= WHOLE:
            file.seek(offset)
            lines = file.read(max(0, end - offset)).split(b"\n")
        else:
            starts = {_next_line(file, int(place)) for place in np.linspace(offset, end - 1, most)[1:]}
            rare = list(_matching_lines(file, offset, end))
            starts |= {offset, *rare[:: math.ceil(len(rare) / most) or 1]}
            lines = [_line_at(file, start) for start in sorted(starts) if start < end]
    return [row for line in lines if (row := as_row(line)) is not None], end


def is_line_start(path: Path, offset: int) -> bool:
    """Whether a line begins at a byte, as it does where a file has only grown since it was read to there."""
    with path.open("rb") as file:
        file.seek(max(0, offset - 1))
        return offset == 0 or file.read(1) == b"\n"


def last_rows(path: Path, most: int) -> list[dict]:
    """The last `most` rows in the last 2 MiB, newest first."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - WHOLE))
        lines = file.read().split(b"\n")
    return list(itertools.islice((row for line in reversed(lines) if (row := as_row(line)) is not None), most))


def count_lines(path: Path) -> int:
    """Whole lines of a file."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))


def _last_newline(path: Path) -> int:
    """The byte after the last whole line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in range(max(0, size - CHUNK), -1, -CHUNK) if size > CHUNK else [0]:
            file.seek(start)
            place = file.read(CHUNK).rfind(b"\n")
            if place >= 0:
                return start + place + 1
    return 0


def _next_line(file, place: int) -> int:
    """The first byte of the first line that begins after `place`."""
    file.seek(place)
    file.readline()
    return file.tell()


def _line_at(file, start: int) -> bytes:
    file.seek(start)
    return file.readline()


def _matching_lines(file, offset: int, end: int) -> Iterator[int]:
    """First bytes of lines that hold an evaluation, each once."""
    last = -1
    for start in range(offset, end, CHUNK):
        file.seek(start)
        chunk = file.read(min(CHUNK, end - start))
        for match in RARE.finditer(chunk):
            begin = start + chunk.rfind(b"\n", 0, match.start()) + 1
            if begin > last and begin > start:  # a line cut by the chunk is one of many, and left out
                last = begin
                yield begin
