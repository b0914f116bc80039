"""The report of recorded traffic; expected values by hand."""

import json
import re

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from evaluation.report.traffic import TrafficReport, markdown
from rlhf_trl_ext.serving.feedback import Feedback
from rlhf_trl_ext.serving.metrics import Metrics
from rlhf_trl_ext.serving.traffic import Traffic

RULES = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "monitor.yaml").rules)


@pytest.fixture
def store(tmp_path):
    opened = Traffic(tmp_path / "t.sqlite")
    yield opened
    opened.close()


def record(store, number, policy, **others):
    prompt = [{"role": "user", "content": f"prompt {number}"}]
    row = {"id": f"{policy}{number}", "time": 100.0 + number, "policy": policy, "prompt": prompt, "completion": "x"}
    row |= {"status": "complete", "latency": 1.0, "first_token": 0.5, "completion_tokens": 10, **others}
    return store.record(row)


def test_speed_failures_and_feedback_of_every_policy(store):
    for number in range(1, 101):
        status = "engine ended" if number > 95 else "complete"
        record(store, number, "a", latency=number / 100, status=status)
    record(store, 0, "a", status="cancelled").result(5)
    for number in range(1, 11):
        store.feedback(Feedback(f"a{number}", "thumb", "up" if number > 2 else "down", "ann"))
    store.feedback(Feedback("a1", "thumb", "up", "ann"))  # changes her mind
    store.feedback(Feedback("a1", "rating", 5, "ann")), store.feedback(Feedback("a2", "rating", 2, "bob")).result(5)
    row = TrafficReport(store.path).results()["policies"]["a"]
    assert row["answers"] == 101 and row["failures"] == 5 and row["failure_rate"][0] == 0.05  # cancelled counts nowhere
    assert row["latency"]["p50"] == pytest.approx(0.48) and row["latency"]["p95"] == pytest.approx(0.01 + 0.95 * 0.94)
    assert row["tokens"] == 950 and row["tokens_per_second"] == pytest.approx(950 / 101)  # from 99 s to 200 s
    assert row["thumbs"] == 10 and row["thumbs_up"][0] == 0.9 and row["satisfied"][0] == 0.5
    low, high = row["thumbs_up"][1:]  # Wilson, 9 of 10
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    assert row["feedback_rate"][0] == pytest.approx(10 / 95)


def test_the_live_comparison_in_words(store):
    for number in range(40):
        record(store, number, "current"), record(store, number, "candidate").result(5)
        pair = (f"candidate{number}", f"current{number}")
        better, worse = pair if number % 4 else pair[::-1]
        store.feedback(Feedback(better, "preferred_over", worse, "ann")).result(5)
    (row,) = TrafficReport(store.path).results()["comparisons"]
    assert (row["policy"], row["win_rate"], row["pairs"]) == ("candidate", 0.75, 40)
    assert row["in_words"].startswith("candidate is better than current: win rate 75.0% over 40 pairs")


def test_a_falling_reward_and_failing_engines_raise_an_alert_of_their_policy_alone(store):
    for number in range(150):
        fallen = number >= 100
        record(store, number, "good", reward=1.0 + number % 3 / 10)
        record(
            store, number, "bad", reward=1.0 + number % 3 / 10 - fallen, status="complete" if number % 9 else "timeout"
        )
    record(store, 150, "good").result(5)
    report = TrafficReport(store.path, window=10, rules=RULES)
    alerts = {(alert["policy"], alert["rule"]) for alert in report.alerts()}
    assert {policy for policy, _ in alerts} == {"bad"} and ("bad", "failures") in alerts
    assert {rule for _, rule in alerts} & {"reward_drift", "reward_spike"}
    assert "ALERT bad, failures" in markdown(report.results())


def test_what_cannot_be_reported_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="holds no answers"):
        TrafficReport(store.path)
    with pytest.raises(ValueError, match="metric=kl: allowed are reward, latency, length, failures"):
        TrafficReport(store.path, rules={"x": {"kind": "drift", "metric": "kl"}})
    with pytest.raises(ValueError, match="no such file"):
        TrafficReport(tmp_path / "absent")


def test_the_dashboard_asks_for_metrics_that_the_gateway_has():
    board = json.loads((ROOT / "rlhf_trl_ext" / "serving" / "grafana.json").read_text())
    metrics = Metrics()
    known = {family.name for family in metrics.registry.collect()}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count", "_total")}
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"[a-z][a-z0-9_]+_[a-z_]+(?=[\[{]|$)", query)}
    assert len(asked) >= 12 and asked <= known
