"""An append-only file of answers, the cache and the memory of what was spent."""

import json
import os
from pathlib import Path

from filelock import FileLock, Timeout


def of_process(path: Path) -> Path:
    """The file itself; where several processes train together, one of each but the first: `<name>-<rank>.jsonl`."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    return path if rank == "0" else path.with_name(f"{path.stem}-{rank}{path.suffix}")


class Record:
    """One JSON object a line, each written by a single call, so that a killed process tears one line at most.

    A torn last line is cut off when the file is opened next. One process at a time, kept by a lock that dies with it.
    In memory are only the places of the answers (`places`, key -> first byte), the number of requests, and the tokens.
    """

    def __init__(self, path: str | Path):
        self.path = of_process(Path(path))
        if self.path.is_dir():
            raise ValueError(f"record={path}: it is a folder, and a file is needed; give another path.")
        self._file: int | None = None
        self._lock = FileLock(f"{self.path}.lock")
        self._forget()
        if self.path.exists():
            self._read()

    def _forget(self) -> None:
        self.places: dict[str, int] = {}
        self.requests, self.end = 0, 0
        self.tokens = {"prompt_tokens": 0, "completion_tokens": 0}

    def __enter__(self) -> "Record":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"record={self.path} is in use by another process: wait for it, or give another record."
            ) from None
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._read()
        os.ftruncate(self._file, self.end)
        return self

    def __exit__(self, *error) -> None:
        os.close(self._file)
        self._file = None
        self._lock.release()

    def _read(self) -> None:
        """Take in the whole lines that are not known yet; all of them where the file is shorter than it was."""
        if self.path.stat().st_size < self.end:
            self._forget()
        with self.path.open("rb") as file:
            file.seek(self.end)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(json.loads(line), len(line))
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"record={self.path}, line {self.requests + 1}: no answer can be read there; delete the line, "
                        "or move the file away to ask everything again."
                    ) from None

    def _take(self, row: dict, length: int) -> None:
        for name in self.tokens:
            self.tokens[name] += row["usage"].get(name, 0)
        if "key" in row:
            self.places[row["key"]] = self.end
        self.requests, self.end = self.requests + 1, self.end + length

    def find(self, key: str) -> dict | None:
        """What was kept under a key, read from the file."""
        if key not in self.places:
            return None
        with self.path.open("rb") as file:
            file.seek(self.places[key])
            return json.loads(file.readline())["answer"]

    def answer(self, key: str, answer: dict, usage: dict) -> None:
        """Keep an answer and what it used."""
        self._append({"key": key, "usage": usage, "answer": answer})

    def charge(self, usage: dict, why: str) -> None:
        """Keep what a request without an answer may have cost."""
        self._append({"usage": usage, "failed": why})

    def _append(self, row: dict) -> None:
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        if os.write(self._file, line) != len(line):
            raise OSError(f"record={self.path}: the disk is full; make room and run again to continue.")
        self._take(row, len(line))
