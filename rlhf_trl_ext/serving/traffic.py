"""Traffic: answers and the feedback on them in one SQLite file, written beside the answering, never in its way."""

import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from rlhf_trl_ext.serving.feedback import Feedback

logger = logging.getLogger(__name__)

VERSION = 1  # of the tables, in SQLite's user_version
ANSWER = {
    "id": "text primary key",
    "time": "real not null",  # seconds since 1970, at the end of the answer
    "policy": "text not null",
    "version": "text",
    "conversation": "text",
    "prompt": "text not null",  # JSON: messages, or a text
    "completion": "text not null",
    "parameters": "text",  # JSON: the rest of the request
    "status": "text not null",  # complete, cancelled, or what went wrong
    "finish": "text",  # the engine's finish_reason
    "latency": "real",  # seconds
    "first_token": "real",  # seconds
    "prompt_tokens": "integer",
    "completion_tokens": "integer",
    "token_ids": "text",  # JSON, where the engine gives them
    "logprobs": "text",  # JSON, where the engine gives them
    "reward": "real",
}
JSON_COLUMNS = ("prompt", "parameters", "token_ids", "logprobs")
SCHEMA = f"""
create table if not exists answers ({", ".join(f"{name} {kind}" for name, kind in ANSWER.items())});
create table if not exists feedback (id text primary key, answer text not null references answers(id) on delete cascade,
  time real not null, kind text not null, value text not null, person text);
create index if not exists answers_time on answers(time);
create index if not exists feedback_answer on feedback(answer);
pragma user_version = {VERSION};
"""
BATCH, QUEUED = 256, 10_000
CLEANING = 3600.0  # seconds between two removals of old answers


class Stopped(Exception):
    """Nothing is recorded at the moment."""


class Unknown(ValueError):
    """Feedback on an answer that is not recorded."""


class Traffic:
    """The writer of a traffic file: one thread that commits what has queued up, all of it in one transaction.

    A committed record survives SIGKILL of the process (WAL; after a power cut the last ones may be missing). Where it
    cannot write, a full disk say, it logs one alert, drops what comes and tries again after `retry` seconds.

    path: of the file; several processes may write to it. keep_days: answers older than that are removed with their
    feedback. redact: is given every text (turns, completion, edit) and returns what is stored of it; what it raises on
    is not stored.
    Raises ValueError for a file that is no traffic.
    """

    def __init__(
        self,
        path: str | Path,
        keep_days: float | None = None,
        redact: Callable[[str], str] | None = None,
        retry: float = 60.0,
    ):
        self.path, self.keep_days, self.redact, self.retry = Path(path), keep_days, redact, retry
        self.dropped, self.stopped, self._resumes, self._cleaned = 0, "", 0.0, -CLEANING
        self._queue: queue.Queue = queue.Queue(QUEUED)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = connect(self.path)
        self._thread = threading.Thread(target=self._write, daemon=True, name="traffic")
        self._thread.start()

    def record(self, answer: dict) -> Future:
        """Queue an answer, columns of `ANSWER`; the future is done when it is on disk, or raises `Stopped`."""
        return self._put(lambda: self._insert_answer(answer))

    def feedback(self, given: Feedback) -> Future:
        """Queue feedback; the future gives the policy that it is on, None where it is there already.

        Raises `Unknown` or `Stopped`.
        """
        return self._put(lambda: self._insert_feedback(given))

    def close(self) -> None:
        """Write what has queued up and close the file."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _put(self, action: Callable) -> Future:
        future: Future = Future()
        future.set_running_or_notify_cancel()  # whoever waits may go away; the writer goes on
        try:
            self._queue.put_nowait((action, future))
        except queue.Full:
            self._stop("the disk is slower than the traffic")
            self._drop(future)
        return future

    def _write(self) -> None:
        open_ended = True
        while open_ended:
            batch = []
            try:
                batch.append(self._queue.get(timeout=CLEANING))
                while len(batch) < BATCH:
                    batch.append(self._queue.get_nowait())
            except queue.Empty:
                pass
            open_ended = None not in batch
            self._commit([each for each in batch if each is not None])

    def _commit(self, batch: list[tuple[Callable, Future]]) -> None:
        if time.monotonic() < self._resumes:
            for _, future in batch:
                self._drop(future)
            return
        done = []
        try:
            with self._connection:
                self._remove_old()
                for action, future in batch:
                    try:
                        done.append((future.set_result, action()))
                    except (sqlite3.OperationalError, sqlite3.InternalError):
                        raise
                    except Exception as error:  # this record's own fault: the others are written
                        done.append((future.set_exception, error))
                        self._refuse(error)
        except sqlite3.Error as error:
            self._stop(str(error))
            for _, future in batch:
                self._drop(future)
            return
        if self.stopped:
            logger.warning("%s: recording again; %d records were dropped.", self.path, self.dropped)
            self.stopped = ""
        for tell, result in done:
            tell(result)

    def _stop(self, reason: str) -> None:
        if not self.stopped:
            logger.error("%s: nothing is recorded any more (%s); answers go on.", self.path, reason)
        self.stopped, self._resumes = reason, time.monotonic() + self.retry

    def _drop(self, future: Future) -> None:
        self.dropped += 1
        future.set_exception(Stopped(f"nothing is recorded at the moment: {self.stopped}"))

    def _insert_answer(self, answer: dict) -> bool:
        prompt = answer["prompt"]
        if self.redact:
            turns = prompt if isinstance(prompt, list) else None
            prompt = self.redact(prompt) if turns is None else [_redacted(turn, self.redact) for turn in turns]
            answer = {**answer, "completion": self.redact(answer["completion"])}
        row = {name: answer.get(name) for name in ANSWER} | {"prompt": prompt}
        row |= {name: None if row[name] is None else json.dumps(row[name]) for name in JSON_COLUMNS}
        names = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        return self._connection.execute(f"insert or ignore into answers ({names}) values ({places})", row).rowcount == 1

    def _insert_feedback(self, given: Feedback) -> str | None:
        policies = {}
        for answer in filter(None, (given.answer, given.value if given.kind == "preferred_over" else None)):
            row = self._connection.execute("select policy from answers where id = ?", (answer,)).fetchone()
            if row is None:
                raise Unknown(f"id={answer}: no such answer is recorded.")
            policies[answer] = row[0]
        value = self.redact(given.value) if self.redact and given.kind == "edit" else given.value
        row = (given.id, given.answer, time.time(), given.kind, json.dumps(value), given.person)
        new = self._connection.execute("insert or ignore into feedback values (?, ?, ?, ?, ?, ?)", row).rowcount == 1
        return policies[given.answer] if new else None

    def _refuse(self, error: Exception) -> None:
        if not isinstance(error, Unknown):
            self.dropped += 1  # the text of a record may be in the error
            logger.error("%s: a record is not stored (%s).", self.path, type(error).__name__)

    def _remove_old(self) -> None:
        if self.keep_days is None or time.monotonic() - self._cleaned < CLEANING:
            return
        self._cleaned = time.monotonic()
        self._connection.execute("delete from answers where time < ?", (time.time() - 86400 * self.keep_days,))


def _redacted(turn: dict, redact: Callable[[str], str]) -> dict:
    """A turn with every text of its content redacted, those of its parts as well."""
    content = turn.get("content")
    if isinstance(content, str):
        return {**turn, "content": redact(content)}
    if isinstance(content, list):
        parts = [{**part, "text": redact(part["text"])} if "text" in part else part for part in content]
        return {**turn, "content": parts}
    return turn


def connect(path: Path) -> sqlite3.Connection:
    """A connection that may write, its tables made. Raises ValueError for a file that is no traffic."""
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        # Pages between checkpoints: in each of them the disk is waited for, and answers wait with it.
        connection.execute("pragma wal_autocheckpoint = 8000")
        connection.execute("pragma secure_delete = on")  # what is removed or redacted is gone from the file as well
        connection.execute("pragma foreign_keys = on")
        version = connection.execute("pragma user_version").fetchone()[0]
        tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
        if version not in (0, VERSION) or (version == 0 and tables):
            raise ValueError(f"traffic={path} is another kind of SQLite file; give another path.")
        if version == 0:  # else nothing is written: a stage is known by the file's content
            connection.executescript(SCHEMA)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"traffic={path}: {error}; give another path.") from error
    return connection


def read(path: str | Path, since: float = 0.0) -> Iterator[dict]:
    """Answers of a traffic file by time, the columns of `ANSWER` and `feedback`, a list of its rows.

    since: seconds since 1970. Raises ValueError for an absent file or one that is no traffic.
    """
    if not Path(path).is_file():
        raise ValueError(f"traffic={path}: no such file; launchers.serve writes one.")
    connection = sqlite3.connect(f"file:{Path(path).absolute()}?mode=ro", uri=True, timeout=10)
    connection.row_factory = sqlite3.Row
    try:
        given: dict[str, list[dict]] = {}
        for row in connection.execute("select * from feedback order by time, rowid"):
            given.setdefault(row["answer"], []).append({**row, "value": json.loads(row["value"])})
        for row in connection.execute("select * from answers where time >= ? order by time, rowid", (since,)):
            parsed = {name: json.loads(row[name]) if row[name] else None for name in JSON_COLUMNS}
            yield {**row, **parsed, "feedback": given.get(row["id"], [])}
    except sqlite3.DatabaseError as error:
        raise ValueError(f"traffic={path} is no traffic of launchers.serve ({error}).") from error
    finally:
        connection.close()
