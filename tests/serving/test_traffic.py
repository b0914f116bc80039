import logging
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from rlhf_trl_ext.serving.feedback import Feedback, parse
from rlhf_trl_ext.serving.traffic import Stopped, Traffic, Unknown, connect, read


def answer(number, **others):
    row = {"id": f"a{number}", "time": time.time(), "policy": "p", "prompt": [{"role": "user", "content": "card 4111"}]}
    return {**row, "completion": "your card 4111", "status": "complete", **others}


@pytest.fixture
def store(tmp_path):
    opened = Traffic(tmp_path / "t.sqlite", retry=0.05)
    yield opened
    opened.close()


def rows(store):
    return list(read(store.path))


def test_an_answer_is_on_disk_when_its_future_is_done_and_is_stored_once(store):
    assert store.record(answer(1, logprobs=[-0.5], completion_tokens=3)).result(5)
    assert not store.record(answer(1)).result(5)
    (row,) = rows(store)
    assert row["prompt"][0]["content"] == "card 4111" and row["logprobs"] == [-0.5] and row["completion_tokens"] == 3


def test_feedback_is_idempotent_and_names_answers_that_exist(store):
    store.record(answer(1)), store.record(answer(2)).result(5)
    given = Feedback("a1", "preferred_over", "a2", "ann")
    assert store.feedback(given).result(5) == "p" and store.feedback(given).result(5) is None
    for unknown in (Feedback("nope", "thumb", "up"), Feedback("a1", "preferred_over", "nope")):
        with pytest.raises(Unknown, match="id=nope: no such answer"):
            store.feedback(unknown).result(5)
    assert [len(row["feedback"]) for row in rows(store)] == [1, 0]


def test_texts_are_redacted_before_they_are_stored_and_one_that_cannot_be_is_not(tmp_path, caplog):
    def redact(text):
        if "secret" in text:
            raise RuntimeError(text)
        return text.replace("4111", "***")

    store = Traffic(tmp_path / "t.sqlite", redact=redact)
    parts = [{"type": "text", "text": "4111"}]
    store.record(answer(1)), store.record(answer(2, prompt=[{"role": "user", "content": parts}]))
    with pytest.raises(RuntimeError):
        store.record(answer(3, completion="secret")).result(5)
    store.feedback(Feedback("a1", "edit", "no 4111")).result(5)
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"4111" not in content and b"secret" not in content and "secret" not in caplog.text
    assert store.dropped == 1 and len(rows(store)) == 2


def test_answers_older_than_keep_days_are_removed_with_their_feedback(tmp_path):
    store = Traffic(tmp_path / "t.sqlite")
    store.record(answer(1, time=time.time() - 3 * 86400)), store.record(answer(2)).result(5)
    store.feedback(Feedback("a1", "thumb", "up")).result(5)
    store.close()
    store = Traffic(tmp_path / "t.sqlite", keep_days=2)
    store.record(answer(3)).result(5)
    store.close()
    assert [row["id"] for row in rows(store)] == ["a2", "a3"]
    assert connect(store.path).execute("select count(*) from feedback").fetchone() == (0,)


def test_a_full_disk_stops_recording_with_one_alert_until_there_is_space(store, caplog):
    caplog.set_level(logging.WARNING)
    store.record(answer(0)).result(5)
    pages = store._connection.execute("pragma page_count").fetchone()[0]
    store._connection.execute(f"pragma max_page_count = {pages + 1}")  # SQLite's "database or disk is full"
    long = "x" * 20_000
    for number in range(1, 4):
        with pytest.raises(Stopped, match="disk is full"):
            store.record(answer(number, completion=long)).result(5)
    assert len([line for line in caplog.records if line.levelname == "ERROR"]) == 1 and store.stopped
    store._connection.execute("pragma max_page_count = 100000")
    time.sleep(0.06)
    store.record(answer(4, completion=long)).result(5)
    assert not store.stopped and store.dropped == 3 and "recording again; 3 records were dropped" in caplog.text
    assert [row["id"] for row in rows(store)] == ["a0", "a4"]


WRITER = """
import sys, time
from rlhf_trl_ext.serving.traffic import Traffic
store = Traffic(sys.argv[1])
for number in range(40):
    row = {"id": f"{sys.argv[2]}-{number}", "time": time.time(), "policy": "p", "prompt": "x", "completion": "y"}
    store.record({**row, "status": "complete"}).result(30)
"""


def test_two_processes_write_at_once(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "t.sqlite")]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(list(read(tmp_path / "t.sqlite"))) == 80


def test_another_file_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n" * 100)
    with pytest.raises(ValueError, match="not a database; give another path"):
        Traffic(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="no such file; launchers"):
        list(read(tmp_path / "absent"))


@pytest.mark.parametrize(
    "body",
    [
        {"thumb": "up"},
        {"id": "a", "thumb": "sideways"},
        {"id": "a", "rating": 6},
        {"id": "a", "rating": True},
        {"id": "a", "edit": " "},
        {"id": "a", "preferred_over": "a"},
        {"id": "a", "thumb": "up", "rating": 5},
        {"id": "a", "thumb": "up", "stars": 5},
        {"id": "a", "thumb": "up", "user": 3},
        ["a"],
    ],
)
def test_malformed_feedback_is_refused_with_the_form_that_is_allowed(body):
    with pytest.raises(ValueError, match='"rating": 1 to 5'):
        parse(body)
