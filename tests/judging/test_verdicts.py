import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256

import pytest
from conftest import ROOT
from judging.scored_replies import many, score

from evaluation.verdicts.win_rate import summary
from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.endpoint import EndpointJudge
from rlhf_trl_ext.judging.verdicts import Verdict, combine, displays, preview, sample_pairs


def judge(tmp_path, url, prompt="helpfulness", both_orders=True, **settings):
    client = functools.partial(Client, record=str(tmp_path / "record.jsonl"), key_variable=None, **settings)
    return EndpointJudge(client=client, model="judge", prompt=prompt, base_url=url, both_orders=both_orders)


def rows(*scores, prompt="prompt"):
    return [
        {"prompt": [{"role": "user", "content": f"{prompt} {i}"}], "completion": f"score={s}"}
        for i, s in enumerate(scores)
    ]


def test_both_orders_by_hand():
    # read when the policy stood first and second: agreement decides, disagreement ties
    assert combine(0.9, 0.8, 2) == Verdict(1.0, pytest.approx(0.85), 1.0, 1.0)
    assert combine(0.9, 0.2, 2) == Verdict(0.5, pytest.approx(0.55), 1.0, 0.0)
    assert combine(0.1, 0.2, 2) == Verdict(0.0, pytest.approx(0.15), 0.0, 0.0)
    assert combine(0.9, None, 2) == Verdict(None, None, 1.0, None)
    assert combine(0.9, None, 1) == Verdict(1.0, 0.9, 1.0, None)


def test_the_better_answer_wins_in_both_orders(endpoint, tmp_path):
    url, seen = endpoint()
    asker = judge(tmp_path, url)
    verdicts = asker.compare(rows(3, 1, 2), rows(1, 3, 2))
    assert [v.outcome for v in verdicts] == [1.0, 0.0, 0.5]
    # the server gives its answer 0.9 of the probability; the third pair is identical and was not asked
    assert [v.preference for v in verdicts] == [pytest.approx(0.9), pytest.approx(0.1), 0.5]
    assert len(seen()) == 4 and asker.notices == []


def test_exchanging_the_sides_gives_the_complement(endpoint, tmp_path):
    url, _ = endpoint()
    asker = judge(tmp_path, url)
    a, b = rows(3, 1, 5), rows(2, 2, 2)
    for forward, backward in zip(asker.compare(a, b), asker.compare(b, a), strict=True):
        assert forward.outcome == 1 - backward.outcome
        assert forward.preference == pytest.approx(1 - backward.preference)


def test_a_judge_that_only_sees_position_ties_everything(endpoint, tmp_path):
    url, _ = endpoint(answer="A")
    pair = rows(1, 2, 3), rows(3, 2.5, 1)
    told = summary(judge(tmp_path, url).compare(*pair), *pair)
    assert (told["win_rate"], told["ties"]) == (0.5, 3)
    assert told["position"]["position_bias"] == 1.0 and told["order_flip_rate"] == 1.0
    assert told["position"]["first_choice_rate"] == 1.0


def test_one_order_is_drawn_by_the_pair(endpoint, tmp_path):
    url, seen = endpoint(answer="A")
    a, b = rows(*range(40)), rows(*range(100, 140))
    verdicts = judge(tmp_path, url, both_orders=False).compare(a, b)
    assert len(seen()) == 40
    first = sum(v.shown_first is not None for v in verdicts)
    assert 10 <= first <= 30 and sum(v.outcome for v in verdicts) == first
    assert verdicts == judge(tmp_path, url, both_orders=False).compare(a, b) and len(seen()) == 40


def test_unreadable_answers_are_asked_once_more_and_counted_apart(endpoint, tmp_path):
    url, seen = endpoint(answer="Hmm", logprobs=False)
    asker = judge(tmp_path, url)
    verdicts = asker.compare(rows(1, 2), rows(3, 2))
    assert [v.outcome for v in verdicts] == [None, 0.5]
    assert len(seen()) == 4  # two orders, each twice
    assert any("ignores logprobs" in notice for notice in asker.notices)


def test_without_logprobs_the_text_decides(endpoint, tmp_path):
    url, _ = endpoint(logprobs=False)
    verdicts = judge(tmp_path, url).compare(rows(3, 1), rows(1, 3))
    assert [(v.outcome, v.preference) for v in verdicts] == [(1.0, 1.0), (0.0, 0.0)]


def test_single_scores_decide_pairs(endpoint, tmp_path):
    url, seen = endpoint(answer="[[7]]")
    asker = judge(tmp_path, url, "mt_bench_single")
    assert [v.outcome for v in asker.compare(rows(1, 2), rows(3, 4))] == [0.5, 0.5]
    assert len(seen()) == 4  # four texts


def test_a_preview_asks_nothing(endpoint, tmp_path):
    url, seen = endpoint()
    asker = judge(tmp_path, url)
    told = preview(asker, [(rows(1, 2, 3), rows(3, 2, 1))])
    assert told["requests"] == 4 and told["answered_before"] == 0 and told["usd"] is None
    assert seen() == [] and not (tmp_path / "record.jsonl").exists()


def server_names(url):
    """Record key -> the server's name of the same question, the hash of its messages."""
    client = functools.partial(Client, record="unused", key_variable=None)
    asker = EndpointJudge(client=client, model="judge", base_url=url)
    shown = displays(asker, sample_pairs(many(1), many(2)))
    questions = [question for inquiry in asker._inquiries(lambda: shown) for question in asker._verdicts(inquiry)]
    return {asker.client.key(q): sha256(json.dumps(q.messages).encode()).hexdigest() for q in questions}


SCRIPT = """
import functools, json, sys
from rlhf_trl_ext.judging.endpoint import EndpointJudge
from scored_replies import many
from rlhf_trl_ext.judging.client import Client
client = functools.partial(Client, record=sys.argv[1], key_variable=None, timeout=1.0, attempts=40, concurrency=32)
verdicts = EndpointJudge(client=client, model="judge", base_url=sys.argv[2]).compare(many(1), many(2))
json.dump([v.outcome for v in verdicts], open(sys.argv[3], "w"))
"""


@pytest.mark.slow
def test_a_thousand_comparisons_survive_faults_and_kills(endpoint, tmp_path):
    """20 % faults, four SIGKILLs: every pair judged once, none lost, none asked again after it was recorded."""
    url, seen = endpoint(latency=0.05, faults=0.2, retry_after=0.05)
    record, result = tmp_path / "record.jsonl", tmp_path / "verdicts.json"
    command = [sys.executable, "-c", SCRIPT, str(record), url, str(result)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{ROOT}/tests/judging"}
    dice, known, position, kills = random.Random(0), set(), 0, 0
    names = server_names(url)
    while True:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        if kills < 4:
            before = len(record.read_bytes()) if record.exists() else 0
            while process.poll() is None and (len(record.read_bytes()) if record.exists() else 0) == before:
                time.sleep(0.05)  # until it is at work
            time.sleep(dice.uniform(0.0, 0.5))
            assert process.poll() is None, "it ended before it was killed four times"
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, stderr = process.communicate(timeout=600)
        time.sleep(0.3)  # what is under way reaches the server's log
        log = seen()
        again = [row for row in log[position:] if row["key"] in known]
        assert again == [], f"{len(again)} asked again after they were answered"
        position = len(log)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr[-2000:]
        whole = record.read_bytes()
        held = map(json.loads, whole[: whole.rfind(b"\n") + 1].splitlines())
        known = {names[row["key"]] for row in held if "key" in row}
    answers = [json.loads(line) for line in record.read_text().splitlines()]
    keys = [row["key"] for row in answers if "key" in row]
    assert len(keys) == len(set(keys)) == 2 * 1000
    expected = [float(score(i, 1) > score(i, 2)) if score(i, 1) != score(i, 2) else 0.5 for i in range(1000)]
    assert json.loads(result.read_text()) == expected
    faults = sum(row["kind"] != "answer" for row in seen())
    print(f"{len(seen())} requests, {faults / len(seen()):.1%} faults, {kills} kills")
    assert 0.17 < faults / len(seen()) < 0.23
