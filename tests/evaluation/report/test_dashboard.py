import contextlib
import itertools
import json
import os
import threading
import urllib.error
import urllib.request

import pytest
from filelock import FileLock

from evaluation.report.dashboard.app import listen, server
from evaluation.report.dashboard.runs import LoggedRuns


@contextlib.contextmanager
def serving(root, host="127.0.0.1"):
    """The address of a dashboard on a free port."""
    listening, running = listen(host, 0), server(LoggedRuns(root), host)
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
    runs = LoggedRuns(tmp_path)
    with FileLock(folder / ".lock"):
        assert runs.summaries()[0]["status"] == "running"
    assert runs.summaries()[0]["status"] == "stopped"
    (folder / "stage.json").write_text("{}")
    assert runs.summaries()[0]["status"] == "finished"


def test_a_run_that_went_back_to_a_checkpoint_is_read_anew(tmp_path, folder):
    runs = LoggedRuns(tmp_path)
    write(folder / "metrics.jsonl", {"step": 2, "loss": 0.25})
    read = runs.logged("stages/grpo-1")["next"]
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    assert runs.logged("stages/grpo-1", read)["restarted"]
    # also where it has grown past what was read
    write(folder / "metrics.jsonl", *({"step": step, "loss": 0.5} for step in range(2, 9)))
    again = runs.logged("stages/grpo-1", read)
    assert again["restarted"] and [row["step"] for row in again["rows"]] == list(range(1, 9))


def test_a_long_log_is_thinned_and_keeps_its_evaluations(tmp_path):
    path = tmp_path / "long" / "metrics.jsonl"
    filler = {f"metric_{number}": 0.123456 for number in range(20)}
    rows = [
        {"step": step, **filler} | ({"eval_reward": step / 1e4} if step % 1000 == 0 else {}) for step in range(10_000)
    ]
    write(path, *rows)
    assert path.stat().st_size > 2**21
    path.open("a").write('{"step": 10000, "torn')
    first = LoggedRuns(tmp_path).logged("long")
    steps = [row["step"] for row in first["rows"]]
    assert len(steps) < 3_100 and steps == sorted(set(steps)) and steps[0] == 0
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 8
    assert [row["step"] for row in first["rows"] if "eval_reward" in row] == list(range(0, 10_000, 1000))
    # what comes later is given whole
    path.write_text(path.read_text() + '": 1}\n')
    assert [row["step"] for row in LoggedRuns(tmp_path).logged("long", first["next"])["rows"]] == [10_000]


DAMAGED = {
    "binary": b"\xff\xfe\x00{}\n",
    "empty": b"",
    "lists": b"[1, 2]\n3\n",
    "text in place of numbers": b'{"step": "<img src=x onerror=alert(1)>", "max_steps": null, "loss": "1", "x": NaN}\n',
    "huge": b'{"step": 1e999, "loss": 1}\n',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_bad_run_is_a_row_and_takes_no_other_away(content, tmp_path, folder):
    bad = tmp_path / "<b>bad"
    for name in ("metrics.jsonl", "alerts.jsonl", "samples.jsonl", "alert_samples.jsonl", "stage.json"):
        bad.mkdir(exist_ok=True)
        (bad / name).write_bytes(content)
    with serving(tmp_path) as address:
        rows = {run["name"]: run for run in get(f"{address}/runs")["runs"]}
        assert rows.keys() == {"stages/grpo-1", "<b>bad"} and rows["<b>bad"]["step"] == 0
        query = "run=%3Cb%3Ebad"
        logged = get(f"{address}/logged?{query}")
        assert all(isinstance(value, int | float) for row in logged["rows"] for value in row.values())
        assert all(isinstance(alert["step"], int | float) for alert in logged["alerts"])
        assert all(isinstance(sample["completion"], str) for sample in get(f"{address}/samples?{query}"))


def test_links_out_of_the_root_are_not_read(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for name in ("metrics.jsonl", "alerts.jsonl", "samples.jsonl", "alert_samples.jsonl", "stage.json"):
        write(outside / name, {"step": 5, "prompt": "secret", "completion": "secret", "rule": "secret"})
        write(root / name.split(".")[0] / "metrics.jsonl", {"step": 1})
        (root / name.split(".")[0] / name).unlink(missing_ok=True)
        (root / name.split(".")[0] / name).symlink_to(outside / name)
    runs = LoggedRuns(root)
    rows = {row["name"]: row for row in runs.summaries()}
    assert rows["metrics"]["status"] == "unreadable" and "link out of the folder" in rows["metrics"]["problem"]
    for name in rows:
        assert "secret" not in json.dumps([runs.logged(name), runs.samples(name)]), name


def test_the_page_may_load_its_own_script_only(tmp_path, folder):
    with serving(tmp_path) as address:
        for place in ("", "/runs", "/nowhere"):
            try:
                answer = urllib.request.urlopen(f"{address}{place}", timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; " in policy and "frame-ancestors 'none'" in policy


def test_an_ipv6_address_serves(tmp_path, folder):
    with serving(tmp_path, "::1") as address:
        assert get(address.replace("127.0.0.1", "[::1]") + "/runs")["runs"][0]["name"] == "stages/grpo-1"


def test_looking_leaves_no_trace(tmp_path, folder):
    (folder / ".lock").write_text("")
    (folder / ".lock").chmod(0o400)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    runs = LoggedRuns(tmp_path)
    assert runs.summaries()[0]["status"] == "stopped"
    runs.logged("stages/grpo-1"), runs.samples("stages/grpo-1")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_logged_completions_are_shown(tmp_path, folder):
    from datasets import Dataset

    (folder / "completions").mkdir()
    rows = [{"step": 1, "prompt": "a", "completion": "b", "gold": 0.5, "advantage": 0.1}]
    Dataset.from_list(rows).to_parquet(folder / "completions" / "completions_00001.parquet")
    (shown,) = LoggedRuns(tmp_path).samples("stages/grpo-1")
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
        LoggedRuns(os.fspath(tmp_path / "nowhere"))
