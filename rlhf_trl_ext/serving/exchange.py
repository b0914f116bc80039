"""One request and its answer: passed on, timed, and recorded before the client has the end of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp

from rlhf_trl_ext.serving.limits import error_body
from rlhf_trl_ext.serving.streams import DONE, SEPARATOR, Answer, Events

RECORD_WAIT = 0.1  # seconds that the end of an answer waits for its record at most
COMPLETE = "complete"
NOT_PARAMETERS = ("messages", "prompt", "model", "stream", "user", "metadata")


class Exchange:
    """response: the engine's, whose body is still to come. gateway: whose limits, metrics and store it uses."""

    def __init__(self, answer_id, policy, version, conversation, body: dict, response, begin: float, gateway):
        self.policy, self.version, self.conversation = policy, version, conversation
        self.body, self.response, self.begin, self.gateway = body, response, begin, gateway
        self.answer, self.first_token, self._open, self._recorded = Answer(answer_id, policy), None, True, None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The engine's stream; an engine that ends early, or too late, ends it with an error."""
        events, last = Events(self.answer), None
        failure = None
        try:
            async for data in self.response.content.iter_any():
                passed, texts = events.take(data)
                last = self._time(last, texts)
                if passed:
                    yield passed
        except TimeoutError:
            failure = "timeout"
        except (aiohttp.ClientError, ValueError):
            failure = "engine ended"
        if not failure and not self.answer.error and not self.answer.finish:
            failure = "engine ended"
        if failure:
            self.answer.error = failure
            error = error_body(f"{failure} before the answer was whole: ask again.", "server_error", 502)
            yield b"data: " + json.dumps(error).encode() + SEPARATOR
        elif not self.answer.error:
            await self.stored()
        if events.done:
            yield DONE + SEPARATOR
        self.finish("")

    def _time(self, last: float | None, texts: int) -> float | None:
        """Note when text came; last: when it did before."""
        if not texts:
            return last
        now, metrics = time.perf_counter(), self.gateway.metrics
        if last is None:
            self.first_token = now - self.begin
            metrics.first_token.labels(self.policy).observe(self.first_token)
        else:
            for _ in range(texts):
                metrics.between.labels(self.policy).observe((now - last) / texts)
        return now

    async def stored(self) -> None:
        """Record a whole answer and wait for it, but not for long: an answer that a client has whole is on disk."""
        future = self._record(COMPLETE)
        if future is not None:
            waiting = asyncio.wrap_future(future)
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # the store has logged it
            await asyncio.wait({waiting}, timeout=RECORD_WAIT)

    def finish(self, otherwise: str) -> None:
        """Give the slot back and count; harmless when repeated. otherwise: what it is where it is not whole."""
        if not self._open:
            return
        self._open = False
        self.gateway.slots.free()
        self.response.close() if self._recorded != COMPLETE else self.response.release()
        if self._recorded is None:
            self._record(self.answer.error or otherwise or f"engine answered {self.response.status}")
        metrics, policy = self.gateway.metrics, self.policy
        if self._recorded == COMPLETE:
            metrics.success.labels(policy, self.answer.finish or "").inc()
            metrics.latency.labels(policy).observe(time.perf_counter() - self.begin)
            metrics.prompt_tokens.labels(policy).inc(self.answer.usage.get("prompt_tokens") or 0)
            metrics.tokens.labels(policy).inc(self.tokens)
        else:
            metrics.failure.labels(policy, self._recorded).inc()

    @property
    def tokens(self) -> int:
        """As the engine counts; pieces of a stream where it does not."""
        return self.answer.usage.get("completion_tokens") or self.answer.pieces

    def _record(self, status: str):
        self._recorded = status
        if self.gateway.store is None:
            return None
        parameters = {key: value for key, value in self.body.items() if key not in NOT_PARAMETERS}
        return self.gateway.store.record(
            {
                "id": self.answer.id,
                "time": time.time(),
                "policy": self.policy,
                "version": self.version,
                "conversation": self.conversation,
                "prompt": self.body.get("messages") or self.body.get("prompt"),
                "completion": self.answer.text,
                "parameters": parameters,
                "status": status,
                "finish": self.answer.finish,
                "latency": time.perf_counter() - self.begin,
                "first_token": self.first_token,
                "prompt_tokens": self.answer.usage.get("prompt_tokens"),
                "completion_tokens": self.tokens,
                "token_ids": self.answer.token_ids or None,
                "logprobs": self.answer.logprobs or None,
            }
        )
