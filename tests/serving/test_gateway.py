"""The gateway before a stand-in engine, asked over HTTP as clients do."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving.conftest import serving

from evaluation.proofs.speed.gateway import burst, stand_in
from rlhf_trl_ext.serving.routing import Routing
from rlhf_trl_ext.serving.traffic import read

TURN = {"role": "user", "content": "Where is my umbrella?"}
CLIENT = httpx.Client(timeout=10)  # one for all: each of its own would read certificates
WORDS = "The umbrella is here , please come to the desk and ask for it ."


def chat(url, **others):
    headers = others.pop("headers", {})
    return CLIENT.post(f"{url}/v1/chat/completions", json={"messages": [TURN], **others}, headers=headers)


def metric(url, name, **labels):
    families = text_string_to_metric_families(CLIENT.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def test_the_official_client_streams_and_gives_feedback(gateway, tmp_path):
    with gateway() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        pieces = list(client.chat.completions.create(model="policy", messages=[TURN], stream=True))
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces).strip() == WORDS
        assert {piece.model for piece in pieces} == {"policy"}
        whole = client.chat.completions.create(model="auto", messages=[TURN], temperature=0.5, user="ann")
        assert whole.choices[0].message.content == WORDS and whole.model == "policy"
        assert [model.id for model in client.models.list()] == ["policy", "auto"]
        for new in (True, False):
            posted = CLIENT.post(f"{url}/v1/feedback", json={"id": whole.id, "preferred_over": pieces[0].id})
            assert posted.json()["new"] is new
        assert metric(url, "feedback_total", kind="preferred_over") == 1
    streamed, other = read(tmp_path / "t.sqlite")
    assert streamed["completion"].strip() == WORDS and 0 < streamed["first_token"] <= streamed["latency"]
    assert streamed["completion_tokens"] == 15 and streamed["status"] == "complete" and streamed["finish"] == "stop"
    assert other["parameters"] == {"temperature": 0.5, "max_tokens": 1024} and other["prompt"] == [TURN]
    assert other["feedback"][0]["value"] == streamed["id"]


@pytest.mark.parametrize(
    ("status", "told", "request_"),
    [
        (401, "a valid key is needed", {"headers": {"Authorization": "Bearer wrong"}}),
        (401, "a valid key is needed", {"headers": {}}),
        (413, "larger than 2,000 bytes", {"json": {"messages": [{"role": "user", "content": "x" * 3000}]}}),
        (413, "larger than 2,000 bytes", {"content": (b"x" * 1000 for _ in range(3))}),
        (415, "application/json", {"content": b"{}", "type": "text/plain"}),
        (400, "no JSON", {"content": b"{"}),
        (400, "a list of", {"json": {"messages": []}}),
        (400, "n=2: one answer a request", {"json": {"messages": [TURN], "n": 2}}),
        (400, "max_tokens=2000: a number from 1 to 1024", {"json": {"messages": [TURN], "max_tokens": 2000}}),
        (404, "model=gpt: allowed are policy, auto", {"json": {"messages": [TURN], "model": "gpt"}}),
    ],
)
def test_what_is_not_allowed_is_refused_as_openai_does(status, told, request_, refusing, caplog):
    kind = request_.pop("type", "application/json")
    own = {"headers": {"Authorization": "Bearer right-key"}, **request_}
    own = own if {"json", "content"} & own.keys() else {**own, "json": {"messages": [TURN]}}
    own["headers"] = {"Content-Type": kind, **own["headers"]}
    answer = CLIENT.post(f"{refusing}/v1/chat/completions", **own)
    assert answer.status_code == status and told in answer.json()["error"]["message"]
    assert "wrong" not in caplog.text


@pytest.fixture(scope="module")
def refusing(engine):
    from rlhf_trl_ext.serving import Limits, create_app

    limits = Limits(max_body_bytes=2000)
    with serving(create_app({"policy": engine}, "url", limits=limits, keys=["right-key"], traffic=None)) as url:
        yield url


def test_a_right_key_is_taken_and_neither_keys_nor_prompts_are_logged(gateway, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with gateway(keys=["other", "right-key"]) as url:
        headers = {"Authorization": "Bearer right-key"}
        assert chat(url, headers=headers).status_code == 200
        assert CLIENT.get(f"{url}/health").json() == {"engines": {"policy": True}, "recording": True}
        assert CLIENT.get(f"{url}/v1/models").status_code == 401
    logged = caplog.text + "".join(capfd.readouterr())
    assert "right-key" not in logged and "umbrella" not in logged


def test_clients_above_the_limit_get_429_and_nothing_hangs(tmp_path):
    from rlhf_trl_ext.serving import Limits, create_app

    limits = Limits(max_concurrent_requests=4)
    with serving(stand_in(0.5)) as engine, serving(create_app(engine, "url", limits=limits, traffic=None)) as url:
        assert asyncio.run(burst(url, 12)) == {200: 4, 429: 8}
        assert chat(url).status_code == 200 and metric(url, "num_requests_running") == 0
        assert metric(url, "requests_rejected_total", code="429") == 8


def test_an_engine_that_ends_in_the_middle_ends_the_stream_with_an_error(gateway, tmp_path):
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        piece = {"choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]}
        await send({"type": "http.response.body", "body": f"data: {json.dumps(piece)}\n\n".encode(), "more_body": True})
        raise RuntimeError("killed")

    async def app(scope, receive, send):
        if scope.get("path", "").endswith("completions"):
            return await broken(scope, receive, send)
        return await stand_in(0)(scope, receive, send)

    with serving(app) as engine, gateway({"policy": engine}) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIError, match="engine ended before the answer was whole"):
            list(client.chat.completions.create(model="policy", messages=[TURN], stream=True))
        assert chat(url).status_code == 502
        assert metric(url, "request_failure_total", reason="engine ended") == 2
        assert metric(url, "num_requests_running") == 0
    assert [row["status"] for row in read(tmp_path / "t.sqlite")] == ["engine ended"] * 2


def test_a_client_that_leaves_gives_its_slot_back(gateway, tmp_path):
    with serving(stand_in(0, between=0.2)) as engine, gateway({"policy": engine}) as url:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json={"messages": [TURN], "stream": True}) as answer:
            next(answer.iter_bytes())
        for _ in range(40):
            if not metric(url, "num_requests_running"):
                break
            asyncio.run(asyncio.sleep(0.05))
        assert metric(url, "num_requests_running") == 0
    (row,) = read(tmp_path / "t.sqlite")
    assert row["status"] == "cancelled" and row["completion"].startswith("The ")


def test_errors_of_the_engine_pass_and_an_engine_that_is_gone_is_503(gateway):
    async def refusing(scope, receive, send):
        if not scope.get("path", "").endswith("completions"):
            return await stand_in(0)(scope, receive, send)
        await send({"type": "http.response.start", "status": 422, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"detail": "no such field"}'})

    with serving(refusing) as engine, gateway({"policy": engine}) as url:
        for stream in (True, False):
            answer = chat(url, stream=stream)
            assert answer.status_code == 422 and answer.json() == {"detail": "no such field"}
    with serving(stand_in(0)) as engine:
        opened = gateway({"policy": engine})
        url = opened.__enter__()
    gone = chat(url)
    assert gone.status_code == 503 and gone.headers["retry-after"] == "1"
    opened.__exit__(None, None, None)


def test_percentiles_of_the_metrics_are_those_of_the_clients(gateway):
    from rlhf_trl_ext.serving.metrics import SECONDS

    with serving(stand_in(0.12)) as engine, gateway({"policy": engine}) as url:
        with ThreadPoolExecutor(4) as clients:
            latencies = sorted(clients.map(lambda _: chat(url).elapsed.total_seconds(), range(24)))
        families = list(text_string_to_metric_families(CLIENT.get(f"{url}/metrics").text))
    (family,) = [family for family in families if family.name == "e2e_request_latency_seconds"]
    counts = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    assert len(counts) == len(SECONDS) + 1  # and infinity
    for quantile in (0.5, 0.95, 0.99):
        own = next(i for i, edge in enumerate(SECONDS) if latencies[int(quantile * 24)] <= edge)
        told = next(i for i, count in enumerate(counts) if count >= quantile * 24)
        assert abs(own - told) <= 1


def test_a_conversation_stays_with_its_policy_and_shares_are_kept():
    routing = Routing(["current", "candidate"], {"current": 0.9, "candidate": 0.1})
    first = [{"role": "user", "content": "a"}]
    later = [*first, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert routing.choose({"messages": first}) == routing.choose({"messages": later})
    chosen = [routing.choose({"messages": first}, f"conversation {number}")[0] for number in range(2000)]
    assert 0.08 < chosen.count("candidate") / 2000 < 0.12
    body = {"messages": first, "metadata": {"conversation": "mine"}, "model": "candidate"}
    assert routing.choose(body) == ("candidate", "mine")


@pytest.mark.parametrize(
    "shares", [{"current": 0.9}, {"current": 0.9, "new": 0.1}, {"current": -1.0, "candidate": 2.0}]
)
def test_shares_that_do_not_fit_are_refused(shares):
    with pytest.raises(ValueError, match="give shares of current, candidate that sum to 1"):
        Routing(["current", "candidate"], shares)


def test_settings_that_cannot_work_are_refused(tmp_path):
    from rlhf_trl_ext.serving import create_app

    for told, settings in {
        "engine=tgi: allowed are": {"engine": "tgi"},
        "counts tokens of a batch": {"engine": "transformers", "max_batch_size": 8},
        "cannot be scored": {"engine": "url", "traffic": None, "reward": "model"},
        "this name chooses by shares": {"engine": "url", "policies": {"auto": "http://127.0.0.1:1"}},
    }.items():
        with pytest.raises(ValueError, match=told):
            create_app(**{"policies": {"p": "x"}, "traffic": tmp_path / "t.sqlite", **settings})


def test_an_engine_s_command_names_its_limit_and_one_that_is_absent_how_to_get_it(tmp_path, monkeypatch):
    from rlhf_trl_ext.serving.engine import command

    monkeypatch.setattr("rlhf_trl_ext.serving.engine.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match="engine=vllm: vllm is not installed; an environment of its own: make setup-gpu"
    ):
        command("vllm", "outputs/dpo", 8001, [], 8)
    with pytest.raises(ValueError, match=r"engine=transformers: transformers is not installed; pip install"):
        command("transformers", "outputs/dpo", 8001, [], None)
    (tmp_path / "vllm").touch(mode=0o755)
    words = command("vllm", "outputs/dpo", 8001, ["--dtype", "float32"], 8)
    assert words[:3] == [str(tmp_path / "vllm"), "serve", "outputs/dpo"]
    assert words[-4:] == ["--max-num-seqs", "8", "--dtype", "float32"]
    words = command("vllm", "org/dpo@v2", 8001, [], None)
    assert words[2] == "org/dpo" and words[-2:] == ["--revision", "v2"] and "org/dpo@v2" in words


def test_adapters_are_served_merged(tiny, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from rlhf_trl_ext.serving.engine import whole_model

    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), lora).save_pretrained(tmp_path / "adapter")
    served = whole_model(str(tmp_path / "adapter"), tmp_path / "traffic")
    assert served.startswith(f"{tmp_path}/traffic/merged-") and whole_model(served, tmp_path) == served
    merged, base = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (served, tiny))
    changed = [name for name, weight in merged.items() if not weight.equal(base[name])]
    assert changed and all("q_proj" in name for name in changed)
