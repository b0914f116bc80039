"""Endpoints that refuse, reason, wrap, lie or send too much: unreadable is counted apart, the rest goes on."""

import functools
import inspect
import json

import openai
import pytest
from openai._models import FinalRequestOptions

from evaluation.verdicts import store
from evaluation.verdicts.pairwise import judge_once
from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.connection import is_azure
from rlhf_trl_ext.judging.endpoint import EndpointJudge
from rlhf_trl_ext.judging.question import OutOfTokens, Refused, Unusable, read
from rlhf_trl_ext.judging.request import Form
from rlhf_trl_ext.judging.session import EndpointFailed


def judge(tmp_path, url, client=None, **settings):
    client = {"key_variable": None, "attempts": 2, **(client or {})}
    made = functools.partial(Client, record=str(tmp_path / "record.jsonl"), **client)
    return EndpointJudge(client=made, model="judge", base_url=url, **settings)


def rows(scores, word="prompt"):
    return [
        {"prompt": [{"role": "user", "content": f"{word} {i}."}], "completion": f"score={s}"}
        for i, s in enumerate(scores)
    ]


def outcomes(verdicts):
    return [verdict.outcome for verdict in verdicts]


def test_one_refused_question_is_unreadable_and_the_rest_goes_on(endpoint, tmp_path):
    url, seen = endpoint(filter="prompt 3.")
    asker = judge(tmp_path, url)
    verdicts = asker.compare(rows([2] * 8), rows([1] * 8))
    assert outcomes(verdicts) == [1, 1, 1, None, 1, 1, 1, 1]
    (first, _) = verdicts[3].evidence
    assert "filtered by the content management policy" in first["text"][0]  # the endpoint's words
    assert any("2 questions got no answer" in notice for notice in asker.notices)
    # a filter's refusal is final: nothing is asked again
    assert outcomes(judge(tmp_path, url).compare(rows([2] * 8), rows([1] * 8))) == outcomes(verdicts)
    assert len(seen()) == 2 * 8


def test_what_only_timed_out_is_asked_again_and_nothing_else(endpoint, tmp_path):
    url, seen = endpoint(filter="prompt 3.", hang="prompt 5.")
    samples, entries = {"dpo": rows([2] * 8), "sft": rows([1] * 8)}, {}

    def judged():
        asker = judge(tmp_path, url, {"attempts": 1, "timeout": 0.5})
        found = judge_once(asker, {}, samples, [("dpo", "sft")], tmp_path, entries)["dpo", "sft"]
        return [place for place, verdict in enumerate(found) if verdict.outcome is None], asker

    assert judged()[0] == [3, 5] and len(seen()) == 16  # two orders of eight pairs
    left, asker = judged()
    assert left == [3] and len(seen()) == 17  # the one question that hung
    assert [v.outcome for v in store.load(tmp_path, entries[asker.name], samples)["dpo", "sft"]].count(None) == 1
    assert judged()[0] == [3] and len(seen()) == 17


def test_a_share_of_failures_above_the_limit_ends_the_run(endpoint, tmp_path):
    url, _ = endpoint(filter="prompt")
    with pytest.raises(EndpointFailed, match=r"4 of 4 questions \(last: refused: 400 The response was"):
        judge(tmp_path, url).compare(rows([2, 2]), rows([1, 1]))
    url, seen = endpoint(filter="prompt")
    with pytest.raises(EndpointFailed, match="gave no answer to 20 of"):  # in a row: the rest is not sent
        judge(tmp_path / "more", url, {"concurrency": 1}).compare(rows([2] * 40), rows([1] * 40))
    assert len(seen()) == 20
    (tmp_path / "some").mkdir()
    url, _ = endpoint(filter="prompt 0.")
    asked = rows([2, 2, 2]), rows([1, 1, 1])
    with pytest.raises(EndpointFailed, match="2 of 6 questions"):
        judge(tmp_path / "some", url).compare(*asked)
    assert outcomes(judge(tmp_path / "some", url, max_unreadable=0.5).compare(*asked)) == [None, 1, 1]


def test_reasoning_models_get_the_form_that_they_take(endpoint, tmp_path):
    url, seen = endpoint(reasoning=True, thinks=True)
    asker = judge(tmp_path, url, {"concurrency": 1})
    assert outcomes(asker.compare(rows([2, 1]), rows([1, 2]))) == [1, 0]
    assert seen()[-1]["request"]["max_completion_tokens"] == 1 + 2048
    assert "max_tokens" not in seen()[-1]["request"] and "temperature" not in seen()[-1]["request"]
    assert [row["kind"] for row in seen()] == ["refuse", "refuse", "answer", "answer", "answer", "answer"]
    assert any("2048 tokens more are allowed" in notice for notice in asker.notices)


def test_thoughts_before_the_verdict_are_allowed_for_and_not_read(endpoint, tmp_path):
    url, seen = endpoint(thinks=True, logprobs=False)  # they name A and B
    asker = judge(tmp_path, url, {"concurrency": 1})
    assert outcomes(asker.compare(rows([2, 1]), rows([1, 2]))) == [1, 0]
    assert [row["request"]["max_tokens"] for row in seen()] == [1, 2049, 2049, 2049, 2049]
    url, _ = endpoint(body={"choice": {"message": {"content": None, "reasoning_content": "Hm"}}})
    with pytest.raises(EndpointFailed, match=r"thought until its tokens were used up: raise client\.thinking_tokens"):
        judge(tmp_path, url).compare(rows([2]), rows([1]))


def test_a_thinking_allowance_counts_against_the_budget(endpoint, tmp_path):
    url, seen = endpoint(thinks=True, logprobs=False)
    asker = judge(tmp_path, url, {"thinking_tokens": 500, "budget_tokens": 2000})
    with pytest.raises(ValueError, match="budget_tokens=2000 is reached"):
        asker.compare(rows([2] * 9), rows([1] * 9))
    assert 0 < sum(row["request"]["max_tokens"] for row in seen()) <= 2000


@pytest.mark.parametrize(
    "options, left", [({"max_completion_tokens": 7}, "max_tokens"), ({"temperature": None}, "seed")]
)
def test_options_win_over_what_is_sent_by_itself(options, left):
    body = Form(options).body("m", [], 1, 0.0, 0)
    assert left not in body and body.get("temperature") == (0.0 if "temperature" not in options else None)
    assert Form(options).largest(1) == options.get("max_completion_tokens", 1)


def test_refusals_teach_the_form_once():
    form = Form()
    assert "gives 3 alternatives" in form.adapt("400 top_logprobs must be at most 3")
    assert form.body("m", [], 1, 0.0, 20)["top_logprobs"] == 3
    assert "refuses logprobs" in form.adapt("400 logprobs are not supported")
    assert "logprobs" not in form.body("m", [], 1, 0.0, 20)
    assert form.adapt("400 logprobs are not supported") is None and form.adapt("400 something else") is None
    assert form.version == 2


def choice(content="A", **more):
    return {"model": "m", "choices": [{"message": {"content": content}, **more}]}


def test_bodies_are_read_as_servers_write_them():
    assert read(choice([{"type": "text", "text": "A"}])).text == "A"
    assert read({**choice(), "model": None}, "asked").model == "asked"
    for logprobs in (None, {"content": None}, {"content": [{"token": "A", "logprob": -0.1}]}, {"tokens": ["A"]}):
        answer = read(choice(logprobs=logprobs))
        assert (answer.text, answer.logprobs, answer.problem) == ("A", None, None)
    refused = read({"choices": [{"message": {"content": None, "refusal": "I cannot."}}]}, "m")
    assert (refused.text, refused.problem) == ("", "refused: I cannot.")
    assert "content filter" in read(choice(None, finish_reason="content_filter")).problem
    for body in (choice("<think>hm"), choice(None, finish_reason="length")):
        with pytest.raises(OutOfTokens):
            read(body)
    with pytest.raises(Refused, match=r"Insufficient credits\. 402"):
        read({"error": {"message": "Insufficient credits.", "code": 402}})
    for body in ([], {"choices": []}, choice(None), choice(3)):
        with pytest.raises(Unusable):
            read(body)


def test_the_verdicts_token_is_the_first_after_the_thoughts():
    tokens = [{"token": t, "logprob": -1.0, "top_logprobs": []} for t in ("<think>", "A", "</think>", "\n\n")]
    tokens.append({"token": "B", "logprob": -0.5, "top_logprobs": [{"token": "A", "logprob": -2.0}]})
    answer = read(choice("<think>A</think>\n\nB", logprobs={"content": tokens}))
    assert (answer.text, answer.logprobs) == ("B", [{"B": -0.5, "A": -2.0}])


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf"), float("inf"), 0.5])
def test_log_probabilities_that_are_none_are_no_verdict(wrong, endpoint, tmp_path):
    top = [{"token": "A", "logprob": wrong}, {"token": "B", "logprob": -2.0}]
    logprobs = {"content": [{**top[0], "top_logprobs": top}]}
    assert "NaN, infinite or positive" in read(choice(logprobs=logprobs)).problem
    url, _ = endpoint(body={"choice": {"logprobs": logprobs}})
    (verdict,) = judge(tmp_path, url).compare(rows([2]), rows([1]))
    assert verdict.outcome is None and verdict.preference is None
    strict = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "record.jsonl").open()]
    assert len(strict) == 2


def test_answers_are_of_bounded_size(endpoint, tmp_path):
    url, _ = endpoint(gzip=64)  # 64 KiB on the wire, 64 MiB unzipped
    with pytest.raises(EndpointFailed, match="more than 8,388,608 bytes"):
        judge(tmp_path, url, {"attempts": 1}).compare(rows([2]), rows([1]))


def test_azure_gets_its_version_its_key_and_its_deployment(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "0123456789abcdef")
    url, seen = endpoint()
    client = {"key_variable": "AZURE_OPENAI_API_KEY", "api_version": "2025-01-01"}
    assert outcomes(judge(tmp_path, url.removesuffix("/v1"), client).compare(rows([2]), rows([1]))) == [1]
    (path,) = {row["path"] for row in seen()}
    assert path == "/openai/deployments/judge/chat/completions?api-version=2025-01-01" and seen()[0]["api_key"]
    asked = functools.partial(Client, "m", str(tmp_path / "r.jsonl"))
    assert is_azure(asked("https://mine.openai.azure.com", "KEY"))
    assert not is_azure(asked("https://mine.openai.azure.com/openai/v1", "KEY"))  # there it speaks as OpenAI does
    assert not is_azure(asked("http://localhost:8000/v1", None))


def test_what_is_used_of_the_package_beyond_its_documents_is_there():
    client = openai.AsyncOpenAI
    assert list(inspect.signature(client._should_retry).parameters) == ["self", "response"]
    assert list(inspect.signature(client._calculate_retry_timeout).parameters)[1:] == [
        "remaining_retries",
        "options",
        "response_headers",
    ]
    assert FinalRequestOptions.construct(method="post", url="", max_retries=3).get_max_retries(0) == 3
