import contextlib
import itertools
import json
import os
import threading
import time
import urllib.error
import urllib.request

import pytest
from browser import browse, needs_browser
from filelock import FileLock

from evaluation.report.dashboard import production
from evaluation.report.dashboard.app import listen, server
from evaluation.report.dashboard.runs import LoggedRuns
from rlhf_trl_ext.serving.traffic import Traffic


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
        assert get(f"{address}/uPlot.iife.min.js").startswith("/*! https://github.com/leeoniya/uPlot")
        assert "--ink" in get(f"{address}/style.css")
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


def test_runs_are_named_by_pipeline_stage_data_model_and_rate(tmp_path, folder):
    """Two pipelines have their own grpo, of another rate each, and share the one of `folder`, which has no name."""
    for rate in (0.1, 0.2):
        stage = tmp_path / "stages" / f"grpo-{rate}"
        write(stage / "metrics.jsonl", {"step": 1})
        config = {"name": "grpo", "args": {"learning_rate": rate}, "dataset": {"_target_": "data.embedded.Embedded"}}
        config["model"] = {"model_name_or_path": "outputs/stages/sft-0123456789abcdef"}
        (stage / "config.yaml").write_text(json.dumps(config))
    (tmp_path / "sweep").mkdir()
    for rate in (0.1, 0.2):
        (tmp_path / "sweep" / f"grpo-{rate}").symlink_to(tmp_path / "stages" / f"grpo-{rate}")
    rows = {row["name"]: row for row in LoggedRuns(tmp_path).summaries()}
    assert rows["stages/grpo-1"]["label"] == "demo/grpo-1" and rows["stages/grpo-1"]["group"] == "demo"
    low = rows["stages/grpo-0.1"]
    assert {key: low[key] for key in ("group", "stage", "data", "model", "learning_rate")} == {
        "group": "sweep",
        "stage": "grpo",
        "data": "embedded",
        "model": "sft",
        "learning_rate": "0.1",
    }
    assert low["label"] == "sweep/grpo 0.1" and rows["stages/grpo-0.2"]["label"] == "sweep/grpo 0.2"


def test_samples_and_alerts_are_there_without_being_asked_for(tmp_path, folder):
    """A run without a monitor, with a KL above 20 throughout, and samples that its pipeline drew."""
    write(folder / "metrics.jsonl", *({"step": step, "loss": 0.5, "reward": 1.0, "kl": 25.0} for step in range(2, 20)))
    prompt = [{"role": "user", "content": "lamp?"}]
    write(tmp_path / "stages" / "samples-1" / "samples.jsonl", {"prompt": prompt, "completion": "here", "reward": 1.0})
    (tmp_path / "demo" / "samples-grpo").symlink_to(tmp_path / "stages" / "samples-1")
    runs = LoggedRuns(tmp_path)
    alerts = runs.logged("stages/grpo-1")["alerts"]
    assert {"kl_high"} <= {alert["rule"] for alert in alerts} and all(alert["message"] for alert in alerts)
    (shown,) = runs.samples("stages/grpo-1")
    assert (shown["completion"], shown["of"], shown["rewards"]) == ("here", "held-out prompts", {"reward": 1.0})
    write(folder / "alerts.jsonl", {"step": 3, "rule": "own", "metric": "kl", "message": "high"})  # it had a monitor
    assert [alert["rule"] for alert in runs.logged("stages/grpo-1")["alerts"]] == ["own"]


def test_production_traffic_stands_beside_training(tmp_path, folder):
    store = Traffic(tmp_path / "traffic" / "traffic.sqlite")
    for number in range(4):
        row = {"id": f"a{number}", "time": time.time() - 60 + number, "policy": "current", "prompt": [], "latency": 0.5}
        status = "complete" if number else "engine ended"
        added = store.record({**row, "completion": "x", "status": status, "completion_tokens": 10, "reward": 1.0})
    added.result(5)
    (tmp_path / "traffic" / "other.sqlite").write_text("no traffic")
    with serving(tmp_path) as address:
        other, own = get(f"{address}/traffic")
        assert "other.sqlite" in other["in_words"][0] and other["rows"] == []
        cells = dict(zip(own["header"], own["rows"][0], strict=True))
        assert (cells["policy"], cells["answers"], cells["failed"][:5]) == ("current", 4, "25.0%")
        assert [point.get("reward") for point in own["points"]["current"]] == [None, 1.0, 1.0, 1.0]  # the first failed
        store.record({**row, "id": "b", "completion": "x", "status": "complete", "completion_tokens": 10}).result(5)
        end = time.monotonic() + 30
        while get(f"{address}/traffic")[1]["rows"][0][2] != 5:
            assert time.monotonic() < end
            time.sleep(0.05)
    store.close()


def test_a_busy_traffic_file_is_read_a_tenth_of_the_time(tmp_path, monkeypatch):
    """Reading takes 2 of its clock's seconds: at 2 it is read, up to 20 not again, though it grows all the time."""
    clock, read = [0.0], []
    path = tmp_path / "t.sqlite"

    def summary(*_):
        clock[0] += 2.0
        read.append(clock[0])
        return {}

    monkeypatch.setattr(production, "summary", summary)
    monkeypatch.setattr(production.time, "monotonic", lambda: clock[0])
    shown = production.Production(tmp_path, 7)
    while clock[0] < 30:
        path.write_text("x" * len(read) + "x" * int(clock[0]))
        shown.files()
        clock[0] += 1.0
    assert read == [2.0, 22.0]


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
    for name in ("metrics.jsonl", "alerts.jsonl", "samples.jsonl", "alert_samples.jsonl", "stage.json", "config.yaml"):
        write(
            outside / name, {"step": 5, "prompt": "secret", "completion": "secret", "rule": "secret", "name": "secret"}
        )
        write(root / name.split(".")[0] / "metrics.jsonl", {"step": 1})
        (root / name.split(".")[0] / name).unlink(missing_ok=True)
        (root / name.split(".")[0] / name).symlink_to(outside / name)
    runs = LoggedRuns(root)
    rows = {row["name"]: row for row in runs.summaries()}
    assert rows["metrics"]["status"] == "unreadable" and "link out of the folder" in rows["metrics"]["problem"]
    for name in rows:
        assert "secret" not in json.dumps([rows[name], runs.logged(name), runs.samples(name)]), name


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


@pytest.mark.slow
@needs_browser
def test_a_browser_draws_runs_and_traffic_without_errors(tmp_path, folder):
    write(folder / "metrics.jsonl", *({"step": step, "loss": 1 / step, "<b>odd": 1.0} for step in range(2, 5)))
    with serving(tmp_path) as address:
        page, console, asked = browse(address, tmp_path)
    assert console == [] and all(place.startswith(address) for place in asked)
    assert "demo (1)" in page and "<canvas" in page and "<figcaption>loss</figcaption>" in page and "<b>odd" not in page
