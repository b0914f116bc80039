"""Limits of what a gateway takes, and the refusals that it answers with."""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse

from rlhf_trl_ext.quantities import Count, Positive

TOKENS = ("max_tokens", "max_completion_tokens")
RETRY_AFTER = "1"  # seconds


class Refusal(Exception):
    """An answer to the client in the form of OpenAI's errors: status code and a sentence."""

    def __init__(self, status: int, sentence: str, kind: str = "invalid_request_error"):
        super().__init__(sentence)
        self.status, self.kind = status, kind

    def response(self) -> JSONResponse:
        headers = {"Retry-After": RETRY_AFTER} if self.status in (429, 503) else {}
        return JSONResponse(error_body(str(self), self.kind, self.status), self.status, headers)


def error_body(sentence: str, kind: str, code: int) -> dict:
    return {"error": {"message": sentence, "type": kind, "param": None, "code": code}}


@dataclass(frozen=True)
class Limits:
    """max_concurrent_requests: in work at once, the next one gets 429. max_body_bytes: of a request. max_new_tokens: of
    an answer, also where the request names none. timeout: seconds for a whole answer. engine_wait: seconds that a
    request waits for an engine that starts again.
    """

    max_concurrent_requests: Count = 100
    max_body_bytes: Count = 1_000_000
    max_new_tokens: Count = 1024
    timeout: Positive = 300.0
    engine_wait: Positive = 60.0


class Slots:
    """As many requests at once as the limit allows."""

    def __init__(self, count: int):
        self.count, self.taken = count, 0

    def take(self) -> None:
        """Raises Refusal (429) where none is free."""
        if self.taken >= self.count:
            message = f"{self.count} requests are in work: ask again after {RETRY_AFTER} s."
            raise Refusal(429, message, "rate_limit_error")
        self.taken += 1

    def free(self) -> None:
        self.taken -= 1


class Keys:
    """Who may ask: without keys everyone. Kept as digests, and compared in constant time."""

    def __init__(self, keys: Iterable[str] = ()):
        self._digests = [_digest(key) for key in keys]

    def check(self, request: Request) -> None:
        """Raises Refusal (401) for a wrong or missing key."""
        if not self._digests:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = _digest(key.strip())
        # every key is compared, so that the time tells nothing
        if not any([hmac.compare_digest(given, known) for known in self._digests]) or scheme.lower() != "bearer":
            raise Refusal(401, "a valid key is needed: Authorization: Bearer <key>.", "authentication_error")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


async def read_json(request: Request, most: int) -> dict:
    """The JSON object of a request of at most `most` bytes. Raises Refusal (400, 413, 415)."""
    if not request.headers.get("content-type", "").startswith("application/json"):  # as a web page could send it
        raise Refusal(415, "Content-Type: application/json is needed.")
    too_large = Refusal(413, f"the request is larger than {most:,} bytes: send less.")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise too_large
    try:
        body = json.loads(bytes(content))
    except (ValueError, RecursionError):
        raise Refusal(400, "the request is no JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "a JSON object is needed.")
    return body


def check_body(body: dict, path: str, limits: Limits) -> None:
    """Refuse what no answer can come of, and set the longest answer where none is named. Raises Refusal (400)."""
    chats = path.endswith("chat/completions")
    prompt = body.get("messages" if chats else "prompt")
    if chats and not (isinstance(prompt, list) and prompt and all(isinstance(turn, dict) for turn in prompt)):
        raise Refusal(400, 'messages: a list of {"role": ..., "content": ...} is needed.')
    if not chats and not (isinstance(prompt, str) and prompt):
        raise Refusal(400, "prompt: one text is needed.")
    if body.get("n") not in (None, 1):
        raise Refusal(400, f"n={body['n']}: one answer a request is given; ask again for another.")
    named = {name: body[name] for name in TOKENS if body.get(name) is not None}
    for name, value in named.items():
        if type(value) is not int or not 1 <= value <= limits.max_new_tokens:
            raise Refusal(400, f"{name}={str(value)[:20]}: a number from 1 to {limits.max_new_tokens} is allowed.")
    if not named:
        body[TOKENS[0]] = limits.max_new_tokens
