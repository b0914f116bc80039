"""An append-only file of answers, the cache and the memory of what was spent."""

import json
import os
from pathlib import Path

from filelock import FileLock, Timeout


class Record:
    """One JSON object a line, each written by a single call, so that a killed process tears one line at most.

    A torn last line is cut off when the file is opened next. One process at a time, kept by a lock that dies with it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.answers: dict[str, dict] = {}
        self.charges: list[dict] = []
        self._file: int | None = None
        self._lock = FileLock(f"{self.path}.lock")
        if self.path.exists():
            self._read(self.path.read_bytes())

    def __enter__(self) -> "Record":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"record={self.path} is in use by another process: wait for it, or give another record."
            ) from None
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.answers, self.charges = {}, []
        os.ftruncate(self._file, self._read(self.path.read_bytes()))
        return self

    def __exit__(self, *error) -> None:
        os.close(self._file)
        self._file = None
        self._lock.release()

    def _read(self, content: bytes) -> int:
        """Take in all whole lines; returns their length in bytes."""
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"record={self.path}, line {number}: no answer can be read there; delete the line, "
                    "or move the file away to ask everything again."
                ) from None
        return whole

    def _take(self, row: dict) -> None:
        if "key" in row:
            self.answers[row["key"]] = row["answer"]
        self.charges.append(row["usage"])

    def answer(self, key: str, answer: dict, usage: dict) -> None:
        """Keep an answer and what it used."""
        self._append({"key": key, "usage": usage, "answer": answer})

    def charge(self, usage: dict, why: str) -> None:
        """Keep what a request without an answer may have cost."""
        self._append({"usage": usage, "failed": why})

    def _append(self, row: dict) -> None:
        line = (json.dumps(row) + "\n").encode()
        if os.write(self._file, line) != len(line):
            raise OSError(f"record={self.path}: the disk is full; make room and run again to continue.")
        self._take(row)
