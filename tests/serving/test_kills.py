"""SIGKILL: of the gateway, of an engine, of both."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import httpx
import openai
import psutil
import pytest
from conftest import ROOT

from evaluation.proofs.speed.gateway import Started
from rlhf_trl_ext.serving.traffic import connect

TURN = {"role": "user", "content": "Where is my umbrella?"}
ANSWERS, FEEDBACKS, KILLS = 2000, 1000, 10


class Clients:
    """Threads that ask until so many answers and so much feedback are acknowledged; what was is in lists."""

    def __init__(self, url):
        self.url, self.answers, self.feedback = url, [], []
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(8)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        client, body = httpx.Client(timeout=5), {"messages": [TURN], "stream": number % 2 == 0}
        while len(self.answers) < ANSWERS or len(self.feedback) < FEEDBACKS:
            try:
                answer = client.post(f"{self.url}/v1/chat/completions", json=body)
                if answer.status_code != 200 or '"error"' in answer.text:
                    continue
                self.answers.append(answer.headers["x-response-id"])
                if len(self.answers) % 2:
                    self.say(client, {"id": self.answers[-1], "rating": len(self.answers) % 5 + 1})
            except httpx.HTTPError:
                time.sleep(0.02)

    def say(self, client, body):
        for _ in range(200):  # the same words until they are acknowledged
            try:
                posted = client.post(f"{self.url}/v1/feedback", json=body)
                if posted.status_code == 200:
                    self.feedback.append(posted.json()["id"])
                    return
            except httpx.HTTPError:
                time.sleep(0.02)


@pytest.mark.slow
def test_no_acknowledged_record_is_lost_or_doubled_by_ten_kills(tmp_path):
    generator = random.Random(0)
    with Started("engine", 0.002) as engine:
        started = Started("gateway", 0, engine.url, str(tmp_path / "t.sqlite"))
        with started as gateway:
            clients, kills = Clients(gateway.url), 0
            while any(thread.is_alive() for thread in clients.threads):
                done = len(clients.answers)
                if kills < KILLS and done >= (kills + 1) * ANSWERS // (KILLS + 1):
                    time.sleep(generator.random() / 20)
                    gateway.kill()
                    gateway.start()
                    kills += 1
                time.sleep(0.005)
    rows = connect(tmp_path / "t.sqlite")
    stored = {row[0] for row in rows.execute("select id from answers where status = 'complete'")}
    said = {row[0] for row in rows.execute("select id from feedback")}
    assert kills == KILLS and len(clients.answers) >= ANSWERS and len(clients.feedback) >= FEEDBACKS
    assert len(clients.answers) == len(set(clients.answers)) and set(clients.answers) <= stored
    assert set(clients.feedback) <= said
    doubled = "select answer, kind from feedback group by answer, kind having count(*) > 1"
    assert not rows.execute(doubled).fetchall()
    assert rows.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    """The launcher with `transformers serve` behind it: its process, address and curl line."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "launchers.serve", str(tiny), "port=0", f"output_root={folder}"]
    with (folder / "err.txt").open("w") as errors:
        launched = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    told = [launched.stdout.readline() for _ in range(2)]
    assert told[0].startswith("serving at"), (folder / "err.txt").read_text()
    yield launched, told[0].split()[2].rstrip(";"), told[1].strip()
    launched.terminate()
    launched.wait(60)


def engine_of(launched):
    """The process of `transformers serve`."""
    return next(
        p for p in psutil.Process(launched.pid).children(recursive=True) if "guard.py" not in " ".join(p.cmdline())
    )


@pytest.mark.slow
def test_a_killed_engine_ends_the_stream_and_the_next_request_is_answered(served):
    launched, url, curl = served
    done = subprocess.run(curl.replace("curl", "curl -s", 1), shell=True, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    asked = {"model": "auto", "messages": [TURN], "max_tokens": 1000, "temperature": 1.0}
    engine = engine_of(launched).pid
    with pytest.raises(openai.APIError, match="before the answer was whole"):
        for number, _ in enumerate(client.chat.completions.create(stream=True, **asked)):
            if number == 0:
                os.kill(engine, signal.SIGKILL)
    answer = client.chat.completions.create(**{**asked, "max_tokens": 5})
    assert answer.usage.completion_tokens <= 5
    assert "engine_restarts_total" in httpx.get(f"{url}/metrics").text


@pytest.mark.slow
def test_a_temperature_is_sampled_at(served):
    """transformers would decode greedily, and say nothing."""
    client = openai.OpenAI(base_url=f"{served[1]}/v1", api_key="none")

    def answers(temperature):
        asked = {"model": "auto", "messages": [TURN], "max_tokens": 12, "temperature": temperature}
        return {client.chat.completions.create(**asked).choices[0].message.content for _ in range(4)}

    assert len(answers(1.0)) == 4 and len(answers(0.0)) == 1


@pytest.mark.slow
def test_the_end_of_the_launcher_leaves_no_process(served):
    launched = served[0]
    processes = psutil.Process(launched.pid).children(recursive=True)
    assert len(processes) >= 2
    launched.kill()
    assert not psutil.wait_procs(processes, 10)[1]
