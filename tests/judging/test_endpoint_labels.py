"""Labels over HTTP from the loopback endpoint: resumption, concurrency, fallbacks, failures."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.endpoint import EndpointJudge
from rlhf_trl_ext.judging.inquiry import Inquiry
from rlhf_trl_ext.judging.labelling import Labelling, Pair
from rlhf_trl_ext.judging.prompt import load
from rlhf_trl_ext.judging.question import Unusable
from rlhf_trl_ext.judging.revision import Reviser

NOT_FOR_LABELLERS = 0.123456789  # a known label


def judge(tmp_path, url, name="record", concurrency=32, **settings):
    def client(model, base_url):
        return Client(model, str(tmp_path / f"{name}.jsonl"), base_url, key_variable=None, concurrency=concurrency)

    return EndpointJudge(client=client, model="judge", base_url=url, **settings)


def pairs(count):
    """The server prefers the larger score."""
    return [Pair(f"p{i}", f"a score={i % 5}", f"b score={i % 3 + 0.5}", NOT_FOR_LABELLERS) for i in range(count)]


def labelled(asked, count, **settings):
    return list(Labelling(**settings).labels(lambda: [p.ordered() for p in pairs(count)], asked, count))


def test_concurrency_does_not_change_the_labels(endpoint, tmp_path):
    url, seen = endpoint()
    one = labelled(judge(tmp_path, url, name="one", concurrency=1), 20)
    many = labelled(judge(tmp_path, url, name="many", concurrency=32), 20)
    assert one == many and len(seen()) == 2 * 40
    for label in one:
        # the server is sure to 0.9 of what it prefers, in either order
        better = float(label.pair.first.split("=")[1]) > float(label.pair.second.split("=")[1])
        assert label.preference == pytest.approx(0.9 if better else 0.1) and label.mass == pytest.approx(1.0)
    again = judge(tmp_path, url, name="one")
    assert labelled(again, 20) == one and len(seen()) == 2 * 40
    assert again.cost["requests"] == 40 and again.cost["usd"] is None
    assert str(NOT_FOR_LABELLERS) not in (tmp_path / "one.jsonl").read_text()


def test_without_logprobs_verdicts_are_drawn_and_that_is_said(endpoint, tmp_path):
    url, seen = endpoint(logprobs=False)
    asked = judge(tmp_path, url, samples=4)
    found = labelled(asked, 3)
    # all 4 draws agree: (4 + .5) / 5 = .9
    assert {round(max(x.preference, 1 - x.preference), 9) for x in found} == {0.9}
    assert len(seen()) == 6 * (1 + 4)
    assert any("drawn verdicts each, not from log-probabilities" in notice for notice in asked.notices)
    assert labelled(judge(tmp_path, url, samples=4), 3) == found and len(seen()) == 6 * 5


def test_what_cannot_be_read_is_asked_once_more_and_then_unparsable(endpoint, tmp_path):
    url, seen = endpoint(answer="Q")  # with 0.9; B has 0.1
    found = labelled(judge(tmp_path, url), 2)
    assert [label.status for label in found] == ["unparsable"] * 2 and len(seen()) == 2 * 2 * 2
    assert all(label.preference is None and label.mass == pytest.approx(0.1) for label in found)


def test_reasons_come_in_a_pass_of_their_own(endpoint, tmp_path):
    url, seen = endpoint()
    asked = judge(tmp_path, url, reasons=True)
    preview = asked.preview_inquiries(
        [Inquiry(load("helpfulness"), (("prompt", "p"), ("first", "x"), ("second", "y")))]
    )
    assert preview["requests"] == 2 and seen() == []
    (label, *_) = labelled(asked, 1)
    assert len(seen()) == 2 * 2 and label.preference is not None
    assert all("\n" in said for opinion in label.evidence for said in opinion["text"])  # rationale, then verdict
    with pytest.raises(ValueError, match="prompt=mt_bench_pair asks for reasons itself"):
        judge(tmp_path, url, prompt="mt_bench_pair", reasons=True)


def test_failures_raise_when_labelling_and_are_counted_when_rewarding(endpoint, tmp_path, monkeypatch):
    from rlhf_trl_ext.judging.session import EndpointFailed
    from rlhf_trl_ext.rewards.ai import AIReward

    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    url, _ = endpoint(faults=0.5, kinds=["500"], answer="4", seed=3)

    def client(model, base_url):
        return Client(model, str(tmp_path / "r.jsonl"), base_url, key_variable=None, attempts=1)

    asked = EndpointJudge(client=client, model="judge", base_url=url)
    with pytest.raises(EndpointFailed):
        asked.ask(lambda: many(30))
    scoring = EndpointJudge(client=client, model="judge", base_url=url, prompt="quality")
    score, logged = AIReward(scoring), {}
    prompts, completions = zip(*[(f"p{i}", f"c{i}") for i in range(20)], strict=True)
    rewards = asyncio.run(score(list(prompts), list(completions), log_metric=logged.__setitem__))
    failed = sum(reward is None for reward in rewards)
    # the server says 4 with .9 and B with .1: the expected score is 4, so 2 (4 - 1) / 4 - 1 = .5
    assert 0 < failed < 20 and logged == {"ai/failed": failed / 20}
    assert {round(reward, 9) for reward in rewards if reward is not None} == {0.5}


def many(count):
    prompt = load("helpfulness")
    return [Inquiry(prompt, (("prompt", f"{i}"), ("first", "x"), ("second", "y"))) for i in range(count)]


def test_a_batch_without_any_reward_stops_the_run(endpoint, tmp_path):
    from rlhf_trl_ext.rewards.ai import AIReward

    url, _ = endpoint(answer="no idea", logprobs=False)
    score = AIReward(judge(tmp_path, url, prompt="quality"))
    with pytest.raises(ValueError, match="none of 2 completions could be read"):
        asyncio.run(score(["p", "q"], ["c", "d"]))


def test_win_rates_within_a_group_sum_to_half_its_size(endpoint, tmp_path):
    from rlhf_trl_ext.rewards.ai import AIReward

    url, seen = endpoint()
    rate = AIReward(judge(tmp_path, url))
    texts = [f"score={score}" for score in (1, 3, 2, 2.5)] * 2
    rewards = asyncio.run(rate(["p"] * 4 + ["q"] * 4, texts))
    # 3 beats all three with .9; 1 loses to all three; 2.5 beats two of three: (.9 + .9 + .1) / 3
    assert rewards[:4] == pytest.approx([0.1, 0.9, (0.9 + 0.1 + 0.1) / 3, (0.9 + 0.9 + 0.1) / 3])
    assert sum(rewards[:4]) == pytest.approx(2) and rewards[:4] == rewards[4:]
    assert len(seen()) == 2 * 2 * 6  # two groups, two orders, 4 * 3 / 2 comparisons
    with pytest.raises(ValueError, match="one completion in this process"):
        asyncio.run(rate(["p", "q"], ["a", "b"]))


def test_replies_are_criticised_and_revised(endpoint, tmp_path):
    from rlhf_trl_ext.judging.constitution import Constitution

    url, seen = endpoint(answer="better")

    def client(model, base_url):
        return Client(model, str(tmp_path / "r.jsonl"), base_url, key_variable=None)

    reviser = Reviser(client, "m", Constitution("harmless"), url, rounds=2)
    rows = [("p", "bad"), ("q", "worse")]
    assert reviser.preview(lambda: rows)["requests"] == 2 * 2 * 2
    found = list(reviser.revisions(lambda: rows, 2))
    assert len(seen()) == 2 * 2 * 2 and [row["completion"] for row in found] == ["better"] * 2
    steps = found[0]["evidence"]["steps"]
    assert len({step["principle"] for step in steps}) == 2 and found[0]["evidence"]["first"] == "bad"
    assert list(reviser.revisions(lambda: rows, 2)) == found and len(seen()) == 8
    with pytest.raises(ValueError, match="rounds=7: give 1 to 6"):
        Reviser(client, "m", Constitution("harmless"), url, rounds=7)


def test_a_decision_over_http_is_read():
    from rlhf_trl_ext.judging import decision
    from rlhf_trl_ext.judging.served import Decision

    inquiry = Inquiry(load("helpfulness"), (("prompt", "p"), ("first", "x"), ("second", "y")))
    question = Decision.of(decision.request(inquiry.prompt, inquiry.material))
    assert question.path == "/systemone" and question.body("m")["model"] == "m"
    told = {"model": "m", "answers": {"verdict": {"probabilities": {"first": 0.75, "second": 0.25}}}}
    answer = question.read({**told, "usage": {"input_tokens": 9}})
    assert answer.text == "first"
    with pytest.raises(Unusable):
        question.read({"answers": {}})


SCRIPT = """
import json, sys
from test_endpoint_labels import judge, labelled
from pathlib import Path
rows = [label.row() for label in labelled(judge(Path(sys.argv[1]), sys.argv[2]), 400)]
Path(sys.argv[3]).write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


@pytest.mark.slow
def test_a_killed_labelling_gives_the_same_file_and_asks_nothing_twice(endpoint, tmp_path):
    url, seen = endpoint(latency=0.1)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{ROOT}/tests/judging"}
    dice, kills = random.Random(0), 0
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), url, str(tmp_path / "labels.jsonl")]
    record = tmp_path / "record.jsonl"
    while True:
        before = record.stat().st_size if record.exists() else 0
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        if kills < 3:
            while process.poll() is None and (record.stat().st_size if record.exists() else 0) == before:
                time.sleep(0.02)
            time.sleep(dice.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, stderr = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr[-2000:]
        time.sleep(0.3)
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run([*command[:3], str(whole), url, str(whole / "labels.jsonl")], env=environment, check=True)
    assert (whole / "labels.jsonl").read_bytes() == (tmp_path / "labels.jsonl").read_bytes()
    keys = [json.loads(line)["key"] for line in record.read_text().splitlines() if "key" in line]
    assert len(keys) == len(set(keys)) == 800  # 400 pairs, two orders, every answer kept once
    sent = len(seen()) - 800  # less those of the undisturbed run
    # what was under way when a process was killed (at most 32 each time) is lost with it and asked again
    assert 800 <= sent <= 800 + 3 * 32
