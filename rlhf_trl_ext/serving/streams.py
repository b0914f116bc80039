"""Answers of an engine as they pass: what they say, under the gateway's id and the policy's name."""

import json
from dataclasses import dataclass, field

SEPARATOR = b"\n\n"
DONE = b"data: [DONE]"


@dataclass
class Answer:
    """What has passed of an answer. text, finish_reason, usage, token_ids and logprobs as the engine gave them."""

    id: str
    model: str
    text: str = ""
    finish: str | None = None
    error: str | None = None
    usage: dict = field(default_factory=dict)
    token_ids: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    pieces: int = 0  # with text

    def rewrite(self, payload: dict) -> bool:
        """Take in a whole answer or one piece, put id and model into it; returns whether it holds text."""
        if "error" in payload:
            self.error = "the engine reported an error"
            return False
        payload["id"], payload["model"] = self.id, self.model
        self.usage = payload.get("usage") or self.usage
        text = ""
        for choice in payload.get("choices") or []:
            part = choice.get("delta") or choice.get("message") or choice
            text += part.get("content") or part.get("text") or ""
            self.finish = choice.get("finish_reason") or self.finish
            self.token_ids += choice.get("token_ids") or []
            logprobs = choice.get("logprobs") or {}
            self.logprobs += logprobs.get("content") or logprobs.get("token_logprobs") or []
        self.text += text
        self.pieces += bool(text)
        return bool(text)


class Events:
    """Server-sent events out of the bytes of a stream, each rewritten by the answer that it belongs to."""

    def __init__(self, answer: Answer):
        self.answer, self._rest, self.done = answer, b"", False

    def take(self, data: bytes) -> tuple[bytes, int]:
        """The whole events of what has come, but for the one that ends the stream; and how many of them hold text."""
        *events, self._rest = (self._rest + data.replace(b"\r\n", b"\n")).split(SEPARATOR)
        passed, texts = [], 0
        for event in events:
            if event.strip() == DONE:
                self.done = True
                continue
            if event.startswith(b"data: {"):
                payload = json.loads(event[6:])
                texts += self.answer.rewrite(payload)
                event = b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
            passed.append(event + SEPARATOR)
        return b"".join(passed), texts
