import asyncio
import collections
import itertools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.limits import BudgetReached, Pace, Prices, SpendingLimit
from rlhf_trl_ext.judging.question import Answer, Question, Unusable, read
from rlhf_trl_ext.judging.record import Record
from rlhf_trl_ext.judging.session import EndpointFailed


def questions(count, start=0, **settings):
    settings = {"max_tokens": 1, **settings}
    return [
        Question(({"role": "user", "content": f"pair {i}: score={i % 7} or score={i % 5}"},), **settings)
        for i in range(start, start + count)
    ]


def truth(i):
    return "A" if i % 7 > i % 5 else "B"


def client(tmp_path, url, **settings):
    return Client("judge", str(tmp_path / "record.jsonl"), url, key_variable=None, **settings)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]


def test_answers_come_in_order_and_nothing_is_asked_twice(endpoint, tmp_path):
    url, seen = endpoint()
    asked = questions(20) + questions(5)  # five of them twice
    answers = client(tmp_path, url).ask(asked)
    assert [a.text for a in answers] == [truth(i) for i in [*range(20), *range(5)]]
    assert len(seen()) == 20
    again = client(tmp_path, url).ask(questions(25))
    assert len(seen()) == 25 and [a.text for a in again[:20]] == [a.text for a in answers[:20]]


@pytest.mark.parametrize("kind", ["429", "500", "hang", "drop", "cut-json", "cut-body", "garbage", "empty", "null"])
def test_every_fault_is_survived(kind, endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)
    url, seen = endpoint(faults=0.4, kinds=[kind], retry_after=0.01)
    asker = client(tmp_path, url, timeout=0.3, attempts=30, concurrency=12)
    assert [a.text for a in asker.ask(questions(12))] == [truth(i) for i in range(12)]
    kinds = collections.Counter(row["kind"] for row in seen())
    assert kinds["answer"] == 12 and (kind == "hang" or kinds[kind] > 0)


def test_retry_after_is_honoured(endpoint, tmp_path):
    url, seen = endpoint(faults=0.5, kinds=["429"], retry_after=0.3, seed=1)
    client(tmp_path, url, attempts=30).ask(questions(6))
    times = collections.defaultdict(list)
    for row in seen():
        times[row["key"]].append(row["time"])
    gaps = [b - a for row in times.values() for a, b in itertools.pairwise(row)]
    assert gaps and min(gaps) >= 0.3


def test_what_decides_the_answer_decides_the_key():
    base = {"model": "m", "base_url": "u", "options": {}}
    question = questions(1)[0]
    keys = {question.key(**base)}
    for change in ({"model": "n"}, {"base_url": None}, {"options": {"seed": 1}}):
        keys.add(question.key(**{**base, **change}))
    for other in (questions(1, 1)[0], questions(1, temperature=1.0)[0], questions(1, top_logprobs=5)[0]):
        keys.add(other.key(**base))
    keys.add(questions(1, max_tokens=2)[0].key(**base))
    assert len(keys) == 8


def test_a_record_cut_at_any_byte_is_taken_up(tmp_path):
    path = tmp_path / "record.jsonl"
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    with Record(path) as record:
        for key in ("one", "two", "three"):
            record.answer(key, {"text": f"é {key}", "model": "m", "logprobs": None}, usage)
        record.charge(usage, "no answer")
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Record(path) as record:
            kept = sum(end <= cut for end in ends)
            assert record.requests == kept and len(record.places) == min(kept, 3)
            record.answer("next", {"text": "", "model": "m", "logprobs": None}, usage)
        assert path.read_bytes().startswith(whole[: ([0, *ends])[kept]])
        assert "next" in Record(path).places and Record(path).requests == kept + 1


def test_a_record_has_one_user_and_tells_where_it_is_broken(tmp_path):
    path = tmp_path / "record.jsonl"
    with Record(path), pytest.raises(ValueError, match="in use by another process"), Record(path):
        pass
    path.write_text('{"usage": {}}\nnonsense\n')
    with pytest.raises(ValueError, match="line 2: no answer can be read"):
        Record(path)


def test_pace_spreads_requests_and_tokens():
    now = SimpleNamespace(time=100.0)
    pace = Pace(60, clock=lambda: now.time)
    assert [pace.delay() for _ in range(4)] == [0, 1, 2, 3]
    now.time = 110.0
    assert [pace.delay(), pace.delay()] == [0, 1]
    tokens = Pace(600, clock=lambda: now.time)
    assert [tokens.delay(100), tokens.delay(50), tokens.delay(1)] == [0, 10, 15]
    assert Pace(None).delay(1e9) == 0


def test_requests_per_minute_are_kept(endpoint, tmp_path):
    url, seen = endpoint()
    client(tmp_path, url, requests_per_minute=600).ask(questions(11))
    times = sorted(row["time"] for row in seen())
    assert times[-1] - times[0] >= 0.95  # ten intervals of 0.1 s


def test_a_budget_is_never_exceeded(endpoint, tmp_path):
    url, seen = endpoint(latency=0.01)
    asked = questions(40)
    limit = 10 * 8  # the server counts 7 tokens a prompt and 1 an answer; the bound before sending is larger
    most = asked[0].most_prompt_tokens + 1
    with pytest.raises(BudgetReached, match="budget_tokens=80 is reached"):
        client(tmp_path, url, budget_tokens=limit).ask(asked)
    assert seen() == []  # not even one request is sure to fit
    with pytest.raises(BudgetReached, match="raise it and run again"):
        client(tmp_path, url, budget_tokens=2 * most, concurrency=8).ask(asked)
    spent = sum(sum(row["usage"].values()) for row in lines(tmp_path))
    assert most < spent <= 2 * most
    # over all runs: nothing more goes out
    sent = len(seen())
    with pytest.raises(BudgetReached):
        client(tmp_path, url, budget_tokens=2 * most).ask(asked)
    assert len(seen()) == sent
    assert len(client(tmp_path, url, budget_tokens=100 * most).ask(asked)) == 40


def test_money_is_counted_by_hand(endpoint, tmp_path):
    # 1 M tokens cost $0.15 in and $0.60 out: 1,000 in and 500 out are $0.00045
    assert Prices(0.15, 0.60).cost(1000, 500) == pytest.approx(0.00045)
    assert Prices().cost(1, 1) is None
    with pytest.raises(ValueError, match=r"budget_usd=1\.0 cannot be kept without prices"):
        SpendingLimit(Prices(), usd=1.0)
    url, seen = endpoint()
    asker = client(tmp_path, url, prices=Prices(1e6, 1e6), budget_usd=1e4)
    asker.ask(questions(3))
    text = questions(1)[0].messages[0]["content"]
    assert asker.budget.spent == 3 * (len(text) // 4 + 1)  # a dollar a token
    assert asker.preview(questions(5))["requests"] == 2 and asker.preview(questions(5))["answered_before"] == 3
    assert asker.preview(questions(5))["usd_spent_before"] == asker.budget.spent
    assert len(seen()) == 3


def test_lost_requests_count_as_spent(endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)
    url, _ = endpoint(faults=1.0, kinds=["garbage"])
    asker = client(tmp_path, url, attempts=2)
    with pytest.raises(EndpointFailed, match="no answer in 2 attempts"):
        asker.ask(questions(1))
    assert asker.budget.prompt_tokens == 2 * questions(1)[0].most_prompt_tokens
    url, _ = endpoint(faults=1.0, kinds=["500"])
    refused = Client("judge", str(tmp_path / "other.jsonl"), url, key_variable=None, attempts=2)
    with pytest.raises(EndpointFailed, match="500"):
        refused.ask(questions(1))
    assert refused.budget.prompt_tokens == 0


def test_waiting_for_room_in_the_budget_does_not_hang():
    async def scenario():
        budget = SpendingLimit(Prices(), tokens=10)
        await budget.reserve(5, 3)
        waiting = asyncio.create_task(budget.reserve(5, 3))
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.add({"prompt_tokens": 1, "completion_tokens": 1})
        await budget.settle(5, 3)
        await asyncio.wait_for(waiting, 1)
        assert budget.reserved == [(5, 3)]

    asyncio.run(scenario())


def test_logprobs_that_are_ignored_or_refused_are_noticed(endpoint, tmp_path):
    url, _ = endpoint(logprobs=False)
    asker = client(tmp_path, url)
    assert asker.ask(questions(2, top_logprobs=5))[0].logprobs is None
    (notice,) = asker.notices
    assert "ignores logprobs" in notice
    url, _ = endpoint(refuse_logprobs=True)
    asker = client(tmp_path, url)
    assert [a.text for a in asker.ask(questions(2, top_logprobs=5))] == [truth(0), truth(1)]
    assert "refuses logprobs" in next(iter(asker.notices))
    url, _ = endpoint()
    asker = client(tmp_path, url)
    assert asker.ask(questions(1, top_logprobs=5))[0].logprobs == [{"B": -0.105360516, "A": -2.302585093}]
    assert not asker.notices


@pytest.mark.parametrize(
    "nonsense",
    ["text", None, [], {"choices": None, "model": "m"}, {"choices": [], "model": "m"}, {"choices": [3], "model": "m"}],
)
def test_garbage_is_no_answer(nonsense):
    with pytest.raises(Unusable):
        read(nonsense)


def test_wrong_settings_are_told_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    record = str(tmp_path / "record.jsonl")
    with pytest.raises(ValueError, match="NO_SUCH_KEY: the environment has no such key"):
        Client("m", record, key_variable="NO_SUCH_KEY").check()
    with pytest.raises(ValueError, match="no name of an environment variable") as told:
        Client("m", record, key_variable="sk-secret-value").check()
    assert "secret" not in str(told.value)
    with pytest.raises(ValueError, match="user, password or query") as told:
        Client("m", record, base_url="http://me:secret@host/v1")
    assert "secret" not in str(told.value)
    with pytest.raises(ValueError, match="concurrency=0"):
        Client("m", record, concurrency=0)


SCRIPT = """
import sys
from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.question import Question
asked = [Question(({"role": "user", "content": f"pair {i}"},), 1, top_logprobs=5) for i in range(3)]
Client("judge", sys.argv[1], sys.argv[2], attempts=2).ask(asked)
"""


@pytest.mark.parametrize("trouble", [{}, {"status": 401}, {"status": 500}, {"faults": 1.0, "kinds": ["garbage"]}])
def test_the_key_appears_nowhere(trouble, endpoint, tmp_path):
    key = "sk-proj-Zq8sVh31xT0eLwMkY6uR"
    url, _ = endpoint(**trouble)  # with a status, it repeats the key that it was given
    environment = {**os.environ, "OPENAI_API_KEY": key, "OPENAI_LOG": "debug", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "dev", "-c", SCRIPT, str(tmp_path / "record.jsonl"), url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode != 0) == bool(trouble), done.stderr[-2000:]
    written = done.stdout + done.stderr + "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    for part in (key, key[:12], key[-8:]):
        assert part not in written
    assert not trouble or "EndpointFailed" in done.stderr


@pytest.mark.slow
def test_as_many_requests_are_under_way_as_are_allowed(endpoint, tmp_path):
    """What bounds labels a second; `python -m evaluation.proofs.speed.labelling` measures them."""
    latency = 2.0
    url, seen = endpoint(latency=latency)
    client(tmp_path, url, concurrency=64).ask(questions(64 * 3))
    begun = [row["time"] for row in seen()]
    under_way = [sum(moment - latency < other <= moment for other in begun) for moment in begun]
    assert max(under_way) == 64


def test_an_answer_survives_the_record(tmp_path):
    answer = Answer("A", "m", [{"A": -0.1, "B": -2.0}])
    question = questions(1)[0]
    asker = Client("m", str(tmp_path / "record.jsonl"), "http://localhost:1/v1", key_variable=None)
    with asker.record as record:
        record.answer(asker.key(question), vars(answer), {"prompt_tokens": 1, "completion_tokens": 1})
    assert asker.known(question) == answer
