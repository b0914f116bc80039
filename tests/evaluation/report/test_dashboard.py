import contextlib
import json
import os
import threading
import urllib.error
import urllib.request

import pytest
from filelock import FileLock

from evaluation.report.dashboard.app import listen, server
from evaluation.report.dashboard.runs import Runs


@contextlib.contextmanager
def serving(root, host="127.0.0.1"):
    """The address of a dashboard on a free port."""
    listening, running = listen(host, 0), server(Runs(root), host)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


def get(address, host=None):
    """A body over HTTP, JSON where it is. host: another name that the request is for."""
    request = urllib.request.Request(address, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read().decode()
        return json.loads(body) if answer.headers["content-type"] == "application/json" else body


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "stages" / "grpo-1"
    write(folder / "metrics.jsonl", {"step": 1, "max_steps": 4, "loss": 0.5, "kl": "nan", "reward": 1.0})
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "grpo").symlink_to(folder)
    return folder


def test_the_page_and_new_rows_come_over_http(tmp_path, folder):
    with serving(tmp_path) as address:
        page, script = get(address), get(f"{address}/page.js")
        assert "page.js" in page and "http" not in page.replace("http-equiv", "") and "https" not in script
        (run,) = get(f"{address}/runs")["runs"]  # the pipeline's link to it is not a second run
        assert (run["name"], run["status"], run["step"], run["max_steps"]) == ("stages/grpo-1", "stopped", 1, 4)
        first = get(f"{address}/logged?run=stages/grpo-1")
        assert first["rows"] == [{"step": 1, "max_steps": 4, "loss": 0.5, "reward": 1.0}]
        write(folder / "metrics.jsonl", {"step": 2, "max_steps": 4, "loss": 0.25})
        write(folder / "alerts.jsonl", {"step": 2, "rule": "kl_spike", "metric": "kl", "value": 9, "message": "high"})
        prompt = [{"role": "user", "content": "lamp?"}]
        sample = {"step": 2, "rule": "kl_spike", "prompt": prompt, "completion": prompt, "rewards": {"gold": 0.5}}
        write(folder / "alert_samples.jsonl", sample)
        later = get(f"{address}/logged?run=stages/grpo-1&after={first['next']}")
        assert [row["step"] for row in later["rows"]] == [2] and later["alerts"][0]["rule"] == "kl_spike"
        assert get(f"{address}/runs")["runs"][0]["alerts"] == 1
        (shown,) = get(f"{address}/samples?run=stages/grpo-1")
        assert (shown["completion"], shown["rewards"], shown["of"]) == ("lamp?", {"gold": 0.5}, "alert kl_spike")


def test_status_is_that_of_the_run(tmp_path, folder):
    runs = Runs(tmp_path)
    with FileLock(folder / ".lock"):
        assert runs.summaries()[0]["status"] == "running"
    assert runs.summaries()[0]["status"] == "stopped"
    (folder / "stage.json").write_text("{}")
    assert runs.summaries()[0]["status"] == "finished"


def test_a_run_that_went_back_to_a_checkpoint_is_read_anew(tmp_path, folder):
    write(folder / "metrics.jsonl", {"step": 2, "loss": 0.25})
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    found = Runs(tmp_path).logged("stages/grpo-1", after=2)
    assert found["restarted"] and [row["step"] for row in found["rows"]] == [1]


def test_logged_completions_are_shown(tmp_path, folder):
    from datasets import Dataset

    (folder / "completions").mkdir()
    rows = [{"step": 1, "prompt": "a", "completion": "b", "gold": 0.5, "advantage": 0.1}]
    Dataset.from_list(rows).to_parquet(folder / "completions" / "completions_00001.parquet")
    (shown,) = Runs(tmp_path).samples("stages/grpo-1")
    assert (shown["prompt"], shown["completion"], shown["rewards"], shown["of"]) == (
        "a",
        "b",
        {"gold": 0.5},
        "training",
    )


@pytest.mark.parametrize(("path", "code"), [("logged?run=../../etc", 404), ("logged?run=stages/grpo-1&after=x", 400)])
def test_what_is_not_a_run_is_refused(path, code, tmp_path, folder):
    with serving(tmp_path) as address, pytest.raises(urllib.error.HTTPError) as error:
        get(f"{address}/{path}")
    assert error.value.code == code


def test_other_names_for_this_machine_are_refused(tmp_path, folder):
    with serving(tmp_path) as address:
        with pytest.raises(urllib.error.HTTPError) as error:
            get(f"{address}/runs", host="elsewhere.example")
        assert error.value.code == 400
        assert get(f"{address}/runs", host="localhost")["root"] == str(tmp_path)


def test_loopback_is_the_default(composed):
    assert composed("dashboard").host == "127.0.0.1"


def test_a_port_that_is_taken_is_told(tmp_path):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port}: .*; give another port"):
            listen("127.0.0.1", port)


def test_a_root_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="no such folder; give one that holds runs"):
        Runs(os.fspath(tmp_path / "nowhere"))
