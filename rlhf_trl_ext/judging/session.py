"""One run of questions over HTTP: side by side, paced, within a budget, every answer kept as it comes.

The `openai` package speaks HTTP. Its own retries are off: every attempt needs room in the budget and in the pace.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import openai
from httpx2 import ConnectError, Response
from openai._models import FinalRequestOptions
from tqdm import tqdm

from rlhf_trl_ext.judging.connection import connect
from rlhf_trl_ext.judging.limits import BudgetReached
from rlhf_trl_ext.judging.question import Answer, OutOfTokens, Question, Refused, Unusable, usage, words
from rlhf_trl_ext.judging.secrets import find_key, scrub

if TYPE_CHECKING:
    from rlhf_trl_ext.judging.client import Client

IN_A_ROW = 20  # questions that fail one after the other end a run
FILTERED = ("content_filter", "content filter", "content management policy", "content policy", "safety system")


class EndpointFailed(ValueError):
    """The endpoint serves nobody; what it answered before is in the record."""


class NoAnswer(Exception):
    """One question got no answer, and why; others may get theirs."""


class Session:
    """Brings answers into the record of a client. max_failed: see `Client.fill`."""

    def __init__(self, client: "Client", max_failed: float):
        self.client, self.max_failed = client, max_failed
        self.secret = find_key(client.key_variable)
        self.settled = self.failed = self._in_a_row = 0
        self._failure: Exception | None = None

    def run(self, queue: Iterator[tuple[str, Question]], description: str, total: int | None) -> int:
        """Ask everything in the queue; returns how many questions got no answer."""
        asyncio.run(self._ask(queue, description, total))
        if self._failure is None and self.failed > self.max_failed * self.settled:
            self._failure = self._too_many(self.client.last_failure)
        if self._failure is not None:
            raise type(self._failure)(scrub(str(self._failure), self.secret)) from None
        return self.failed

    async def _ask(self, queue: Iterator, description: str, total: int | None) -> None:
        client = self.client
        async with connect(client, self.secret) as self.http:
            with tqdm(total=total, desc=description, unit="answer", mininterval=0.5) as bar:
                workers = min(client.concurrency, total or client.concurrency)
                await asyncio.gather(*(self._work(queue, bar) for _ in range(workers)))

    async def _work(self, queue: Iterator, bar: tqdm) -> None:
        """Take questions until none is left, or the run has failed."""
        for key, question in queue:
            try:
                await self._settle(key, question)
                self._in_a_row = 0
            except NoAnswer as error:
                self._count(key, scrub(str(error), self.secret))
            except (EndpointFailed, BudgetReached) as error:
                self._failure = self._failure or error
            if self._failure is not None:
                return
            self.settled += 1
            spent = f"${self.client.budget.spent:.4f}" if self.client.budget.spent is not None else "cost unknown"
            tokens = self.client.budget.prompt_tokens + self.client.budget.completion_tokens
            bar.set_postfix_str(f"{spent}, {tokens:,} tokens", refresh=False)
            bar.update()

    def _count(self, key: str, why: str) -> None:
        self.client.failures[key] = why
        self.failed, self._in_a_row = self.failed + 1, self._in_a_row + 1
        if self.max_failed == 0 or (self._in_a_row >= IN_A_ROW and self.max_failed < 1):
            self._failure = self._failure or self._too_many(why)

    def _too_many(self, why: str) -> EndpointFailed:
        total = max(self.settled, self.failed)
        return EndpointFailed(
            f"{self.client.where()} gave no answer to {self.failed} of {total} questions (last: {why}); answers so far "
            f"are in {self.client.record.path}: run again to continue."
        )

    async def _settle(self, key: str, question: Question) -> None:
        """Ask until there is an answer. Raises NoAnswer where this question gets none, EndpointFailed where all do."""
        problem, attempt, attempts = "no attempt", 0, self.client.attempts
        while attempt < attempts:
            version, headers = self.client.form.version, None
            try:
                return await self._attempt(key, question)
            except OutOfTokens:
                if self._adapted(version, self.client.form.think):
                    continue
                raise NoAnswer("it thought until its tokens were used up: raise client.thinking_tokens") from None
            except Refused as error:
                raise NoAnswer(f"refused: {error}") from None
            except openai.APIStatusError as error:
                problem, headers = f"{error.status_code} {words(error.body or error.message)}", error.response.headers
                if error.status_code in (400, 422):
                    if self._adapted(version, lambda: self.client.form.adapt(problem)):  # noqa: B023
                        continue
                    self._refuse(key, problem)
                if "insufficient_quota" in str(error.body) or not self.http._should_retry(error.response):
                    raise EndpointFailed(self._refused(error.status_code, problem)) from None
            except (openai.APIConnectionError, Unusable) as error:
                problem = str(error.__cause__ or error)
            attempt += 1
            if attempt < attempts:
                await self._sleep(self._pause(attempts - attempt, headers))
        raise NoAnswer(f"no answer in {attempts} attempts, the last: {problem}")

    def _adapted(self, version: int, change) -> bool:
        """Whether the form of requests has changed since one was sent, or changes now."""
        if self.client.form.version > version:
            return True
        notice = change()
        if notice:
            self.client.notices.add(f"{self.client.where()} {notice}")
        return notice is not None

    def _refuse(self, key: str, problem: str) -> None:
        """Raises NoAnswer. A content filter's refusal is final, and kept."""
        if any(sign in problem.lower() for sign in FILTERED):
            kept = Answer("", self.client.model, problem=scrub(f"refused: {problem}", self.secret))
            self.client.record.answer(key, vars(kept), {"prompt_tokens": 0, "completion_tokens": 0})
        raise NoAnswer(f"refused: {problem}")

    def _pause(self, remaining: int, headers) -> float:
        """Seconds until the next attempt: Retry-After, else exponential with jitter, as the package has it."""
        options = FinalRequestOptions.construct(method="post", url="", max_retries=self.client.attempts - 1)
        return self.http._calculate_retry_timeout(remaining, options, headers)

    async def _attempt(self, key: str, question: Question) -> None:
        """One request, within pace and budget; its answer goes to the record."""
        body = question.body(self.client.model, self.client.form)
        largest = {
            "prompt_tokens": question.most_prompt_tokens,
            "completion_tokens": self.client.form.largest(question.max_tokens),
        }
        await self.client.budget.reserve(*largest.values())
        charged = None
        try:
            await self._sleep(self.client.requests.delay())
            await self._sleep(self.client.tokens.delay(question.likely_prompt_tokens + largest["completion_tokens"]))
            charged = largest
            try:
                async with asyncio.timeout(self.client.timeout):
                    response = await self.http.post(question.path, body=body, cast_to=Response)
                content = json.loads(response.content)
                answer = question.read(content, self.client.model)
            except TimeoutError:
                raise Unusable(f"no answer in {self.client.timeout:g} seconds") from None
            except ValueError as error:  # bytes that are no text are one as well
                raise Unusable(f"a response that is no JSON ({type(error).__name__})") from None
            except openai.APIConnectionError as error:
                charged = None if isinstance(error.__cause__, ConnectError) else charged
                raise
            except (openai.APIStatusError, Refused):
                charged = None
                raise
            if (
                question.top_logprobs
                and answer.logprobs is None
                and not answer.problem
                and self.client.form.top_logprobs
            ):
                self.client.notices.add(f"{self.client.where()} ignores logprobs: verdicts are read from the text.")
            charged = usage(content, question, answer, largest["completion_tokens"])
            self.client.record.answer(key, vars(answer), charged)
            self.client.budget.add(charged)
            charged = None
        finally:
            if charged is not None:  # sent, without an answer: it may have been billed
                self.client.record.charge(charged, "no answer")
                self.client.budget.add(charged)
            await self.client.budget.settle(*largest.values())

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the run fails meanwhile."""
        end = time.monotonic() + seconds
        while seconds > 0:
            if self._failure is not None:
                raise EndpointFailed("stopped")
            await asyncio.sleep(min(seconds, 1.0))
            seconds = end - time.monotonic()

    def _refused(self, status: int, problem: str) -> str:
        hint = {
            401: f"check the key in {self.client.key_variable}",
            402: "check the account",
            403: f"check what the key in {self.client.key_variable} may do",
            404: "check model and base_url",
            429: "run again later",
        }.get(status, "check the settings")
        return f"{self.client.where()} refuses the request ({problem}): {hint}."
