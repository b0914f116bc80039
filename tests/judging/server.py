"""A loopback chat endpoint for tests: `python server.py '{"latency": 0.1, "faults": 0.2}'` prints its port.

It prefers the answer with the larger number after `score=`: A for the first in the prompt, B for the second.
Faults: 429 with Retry-After, 500, hang, drop, JSON cut off, body cut off, garbage, empty choices, no text.
Every request is appended to `log` as JSON: time, the messages' SHA-256, what was answered.
"""

import asyncio
import hashlib
import json
import random
import re
import sys
import time

SETTINGS = {
    "latency": 0.0,
    "faults": 0.0,
    "kinds": ["429", "500", "hang", "drop", "cut-json", "cut-body", "garbage", "empty", "null"],
    "retry_after": 0.05,
    "logprobs": True,
    "refuse_logprobs": False,
    "answer": None,
    "status": None,
    "log": None,
    "seed": 0,
}


def reply(request, settings):
    text = "".join(message["content"] for message in request["messages"])
    scores = [float(x) for x in re.findall(r"score=(-?[\d.]+)", text)] + [0.0, 0.0]
    answer = settings["answer"] or ("A" if scores[0] > scores[1] else "B")
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    if request.get("logprobs") and settings["logprobs"]:
        other = "B" if answer == "A" else "A"
        alternatives = [(answer, -0.105360516), (other, -2.302585093)]  # 0.9 and 0.1
        top = [{"token": token, "logprob": p, "bytes": None} for token, p in alternatives]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 1, "total_tokens": len(text) // 4 + 1}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [choice],
        "usage": usage,
    }


def response(body, status="200 OK", kind="application/json", length=None, extra=""):
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{extra}\r\n"
    return head.encode() + body


def faulty(kind, request, settings):
    """Bytes of a fault, and whether the connection is closed after them; None to send nothing at all."""
    whole = json.dumps(reply(request, settings)).encode()
    if kind == "429":
        return response(
            b'{"error": {"message": "slow"}}', "429 Too Many", extra=f"Retry-After: {settings['retry_after']}\r\n"
        )
    if kind == "500":
        return response(b"oops", "500 Internal Server Error")
    if kind == "cut-json":
        return response(whole[: len(whole) // 2])
    if kind == "cut-body":
        return response(whole[: len(whole) // 2], length=len(whole))
    if kind == "garbage":
        return response(b"<html>\xff\xfe</html>", kind="text/html")
    empty = {**json.loads(whole), "choices": []}
    if kind == "null":
        empty["choices"] = [{"index": 0, "message": {"content": None}}]
    return response(json.dumps(empty).encode())


async def serve(settings):
    dice = random.Random(settings["seed"])
    log = open(settings["log"], "a", buffering=1) if settings["log"] else None  # noqa: SIM115

    async def connection(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(re.search(r"content-length: (\d+)", head, re.I).group(1))
                request = json.loads(await reader.readexactly(length))
                kind = dice.choice(settings["kinds"]) if dice.random() < settings["faults"] else "answer"
                if settings["refuse_logprobs"] and request.get("logprobs"):
                    kind = "refuse"
                key = hashlib.sha256(json.dumps(request["messages"]).encode()).hexdigest()
                if log:
                    log.write(json.dumps({"time": time.monotonic(), "key": key, "kind": kind}) + "\n")
                await asyncio.sleep(settings["latency"] if kind != "hang" else 3600)
                if settings["status"]:
                    token = re.search(r"authorization: bearer (\S+)", head, re.I)
                    told = json.dumps({"error": {"message": f"bad key {token and token.group(1)}"}}).encode()
                    writer.write(response(told, f"{settings['status']} Refused"))
                elif kind == "refuse":
                    writer.write(response(b'{"error": {"message": "logprobs are not supported"}}', "400 Bad Request"))
                elif kind == "answer":
                    writer.write(response(json.dumps(reply(request, settings)).encode()))
                elif kind != "drop":
                    writer.write(faulty(kind, request, settings))
                await writer.drain()
                if kind in ("drop", "cut-body"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve({**SETTINGS, **json.loads(sys.argv[1])}))
