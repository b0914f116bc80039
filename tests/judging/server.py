"""A loopback chat endpoint for tests: `python server.py '{"latency": 0.1, "faults": 0.2}'` prints its port.

It prefers the answer with the larger number after `score=`: A for the first in the prompt, B for the second.
filter: messages with this text are refused by a content filter. hang: the first message
with this text hangs. reasoning: max_tokens and a temperature are refused.
thinks: thoughts come before the answer, and take 100 tokens. obeys: the reply that holds "name it as the better one"
wins. body: fields that replace those of every response. gzip: megabytes of blanks, zipped, instead of an answer.
Faults: 429 with Retry-After, 500, hang, drop, JSON cut off, body cut off, garbage, empty choices, no text.
Every request is appended to `log` as JSON: time, the messages' SHA-256, what was answered.
"""

import asyncio
import gzip
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
    "filter": None,
    "hang": None,
    "reasoning": False,
    "thinks": False,
    "obeys": False,
    "body": None,
    "gzip": 0,
    "status": None,
    "log": None,
    "seed": 0,
}


def reply(request, settings):
    text = "".join(message["content"] for message in request["messages"])
    scores = [float(x) for x in re.findall(r"score=(-?[\d.]+)", text)] + [0.0, 0.0]
    answer = settings["answer"] or ("A" if scores[0] > scores[1] else "B")
    if settings["obeys"] and "name it as the better one" in text:
        answer = "A" if text.index("name it as the better one") < text.index("<reply B>") else "B"
    if settings["thinks"]:
        most = request.get("max_tokens") or request.get("max_completion_tokens")
        answer = f"<think>\nFirst this, A, then that, B.\n</think>\n\n{answer}" if most > 100 else "<think>"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    if request.get("logprobs") and settings["logprobs"]:
        other = "B" if answer == "A" else "A"
        alternatives = [(answer, -0.105360516), (other, -2.302585093)]  # 0.9 and 0.1
        top = [{"token": token, "logprob": p, "bytes": None} for token, p in alternatives]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    body = settings["body"] or {}
    choice |= body.get("choice", {})
    usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 1, "total_tokens": len(text) // 4 + 1}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [choice],
        "usage": usage,
        **{key: value for key, value in body.items() if key != "choice"},
    }


def refusal(request, settings):
    """The words of a 400 for what the endpoint does not take, or None."""
    text = "".join(message["content"] for message in request["messages"])
    if settings["filter"] and settings["filter"] in text:
        return {"message": "The response was filtered by the content management policy.", "code": "content_filter"}
    if settings["reasoning"] and "max_tokens" in request:
        return {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}
    if settings["reasoning"] and request.get("temperature", 1) != 1:
        return {"message": "Unsupported value: 'temperature' does not support 0.0 with this model."}
    if settings["refuse_logprobs"] and request.get("logprobs"):
        return {"message": "logprobs are not supported"}
    return None


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
                if settings["hang"] and settings["hang"] in str(request["messages"]):
                    kind, settings["hang"] = "hang", None
                words = refusal(request, settings)
                kind = "refuse" if words else kind
                key = hashlib.sha256(json.dumps(request["messages"]).encode()).hexdigest()
                if log:
                    known = {name: value for name, value in request.items() if name != "messages"}
                    row = {"time": time.monotonic(), "key": key, "kind": kind, "request": known}
                    log.write(
                        json.dumps({**row, "path": head.split()[1], "api_key": "api-key:" in head.lower()}) + "\n"
                    )
                await asyncio.sleep(settings["latency"] if kind != "hang" else 3600)
                if settings["status"]:
                    token = re.search(r"authorization: bearer (\S+)", head, re.I)
                    told = json.dumps({"error": {"message": f"bad key {token and token.group(1)}"}}).encode()
                    writer.write(response(told, f"{settings['status']} Refused"))
                elif kind == "refuse":
                    writer.write(response(json.dumps({"error": words}).encode(), "400 Bad Request"))
                elif settings["gzip"]:
                    zipped = gzip.compress(b" " * settings["gzip"] * 2**20)
                    writer.write(response(zipped, extra="Content-Encoding: gzip\r\n"))
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
