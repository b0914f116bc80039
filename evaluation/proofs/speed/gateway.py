"""What the gateway adds to an engine's latency: `python -m evaluation.proofs.speed.gateway`.

A stand-in engine of fixed latency is asked by many clients at once, directly and through the gateway, in turns; three
processes. Then more clients than the limit allows ask at once. Prints a table.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
import psutil

WORDS = ["The", "umbrella", "is", "here", ",", "please", "come", "to", "the", "desk", "and", "ask", "for", "it", "."]


def stand_in(latency: float, between: float = 0.0):
    """An engine as ASGI app that answers after `latency` seconds, `between` seconds from word to word of a stream."""

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return await _lifespan(receive, send)
        content = b""
        while (message := await receive()).get("more_body") or message["type"] == "http.request":
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/models":
            return await _reply(send, json.dumps({"object": "list", "data": [{"id": "stand-in"}]}).encode())
        if not scope["path"].startswith("/v1/"):
            return await _reply(send, b"{}")
        body = json.loads(content)
        await asyncio.sleep(latency)
        if not body.get("stream"):
            return await _reply(send, json.dumps(_whole()).encode())
        await _start(send, b"text/event-stream")
        for index, word in enumerate([*WORDS, None]):
            await asyncio.sleep(between if index else 0)
            piece = f"data: {json.dumps(_piece(word))}\n\n".encode()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    return app


async def _lifespan(receive, send):
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _start(send, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})


async def _reply(send, content: bytes) -> None:
    await _start(send, b"application/json")
    await send({"type": "http.response.body", "body": content})


def _whole() -> dict:
    message = {"role": "assistant", "content": " ".join(WORDS)}
    usage = {"prompt_tokens": 5, "completion_tokens": len(WORDS), "total_tokens": 5 + len(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def _piece(word: str | None) -> dict:
    delta = {} if word is None else {"content": f"{word} "}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if word is None else None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


async def ask(session: aiohttp.ClientSession, url: str, stream: bool) -> tuple[int, float, dict]:
    """Status, seconds until the answer was whole, headers."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Where is it?"}], "stream": stream}
    begin = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.read()
        return response.status, time.perf_counter() - begin, dict(response.headers)


async def in_flight(url: str, requests: int, seconds: float, stream: bool, latency: float) -> np.ndarray:
    """Latencies `(N,)` in seconds with so many requests in flight on average.

    Clients ask again a random while after an answer, a quarter of the latency at most: without it all would ask in the
    same moment for ever, as an engine of fixed latency answers all of them in the same moment.
    """
    taken, pause = [], latency / 4
    clients, generator = round(requests * (1 + pause / 2 / latency)), random.Random(0)

    async def client(session):
        await asyncio.sleep(generator.random() * latency)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            status, duration, _ = await ask(session, url, stream)
            assert status == 200, status
            taken.append(duration)
            await asyncio.sleep(generator.random() * pause)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return np.array(taken)


async def burst(url: str, clients: int) -> Counter:
    """Statuses of clients that ask once, all at once; those of 429 without Retry-After are counted as 0."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        answers = await asyncio.gather(*(ask(session, url, False) for _ in range(clients)))
    return Counter(0 if status == 429 and "Retry-After" not in headers else status for status, _, headers in answers)


def serve(role: str, descriptor: int, latency: float, engine: str, traffic: str) -> None:
    """What the processes of the engine and of the gateway do."""
    import uvicorn

    app = stand_in(latency)
    if role == "gateway":
        from rlhf_trl_ext.serving import create_app

        app = create_app({"stand-in": engine}, engine="url", traffic=traffic or None)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[socket.socket(fileno=descriptor)])


class Started:
    """A process of this module that serves on a port of its own, which it keeps when it is killed and started again."""

    def __init__(self, role: str, latency: float, engine: str = "", traffic: str = ""):
        self._listening = socket.socket()
        self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(512)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        words = [role, str(self._listening.fileno()), str(latency), engine, traffic]
        self._command = [sys.executable, "-m", "evaluation.proofs.speed.gateway", "--serve", *words]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, pass_fds=[self._listening.fileno()])

    def processor_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._listening.close()


def quantiles(seconds: np.ndarray) -> str:
    return " | ".join(f"{1000 * np.quantile(seconds, q):.1f}" for q in (0.5, 0.99))


def measure(clients: int, latency: float, seconds: float, turns: int) -> list[str]:
    columns = (
        "answers",
        "direct p50",
        "p99 ms",
        "gateway p50",
        "p99 ms",
        "added p50",
        "p99 ms",
        "processor ms an answer",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    with tempfile.TemporaryDirectory() as folder, Started("engine", latency) as engine:
        traffic = str(Path(folder) / "traffic.sqlite")
        with Started("gateway", latency, engine.url, traffic) as gateway:
            for url in (engine.url, gateway.url):
                asyncio.run(in_flight(url, clients, 1.0, False, latency))  # warm
            for stream in (False, True):
                before = gateway.processor_seconds()
                taken = {engine.url: [], gateway.url: []}
                for _ in range(turns):
                    for url, own in taken.items():
                        own.append(asyncio.run(in_flight(url, clients, seconds, stream, latency)))
                direct, through = (np.concatenate(own) for own in taken.values())
                added = [1000 * (np.quantile(through, q) - np.quantile(direct, q)) for q in (0.5, 0.99)]
                kind = "streamed" if stream else "whole"
                spent = 1000 * (gateway.processor_seconds() - before) / len(through)
                row = f"{quantiles(direct)} | {quantiles(through)} | {added[0]:.1f} | {added[1]:.1f} | {spent:.2f}"
                lines.append(f"| {kind}, {len(through)} | {row} |")
            counts = asyncio.run(burst(gateway.url, 200))
            lines += ["", f"200 clients at once, limit 100: {dict(counts)} (0: 429 without Retry-After)"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds, of the stand-in engine")
    parser.add_argument("--seconds", type=float, default=5.0, help="of every turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        role, descriptor, latency, engine, traffic = given.serve
        return serve(role, int(descriptor), float(latency), engine, traffic)
    print(*measure(given.clients, given.latency, given.seconds, given.turns), sep="\n")


if __name__ == "__main__":
    main()
