"""Asks many questions of an OpenAI-compatible endpoint: bounded, retried, recorded, within a budget."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from tqdm import tqdm

from rlhf_trl_ext.judging.connection import Connection, RequestFailed
from rlhf_trl_ext.judging.limits import Budget, BudgetReached, Pace, Prices
from rlhf_trl_ext.judging.question import Answer, Question, Unusable, usage
from rlhf_trl_ext.judging.record import Record
from rlhf_trl_ext.judging.retries import billed, told, wait
from rlhf_trl_ext.judging.secrets import checked_url, find_key, scrub

OPENAI = "https://api.openai.com/v1"
LONGEST_WAIT = 600.0  # seconds that an endpoint may ask to wait before the run gives up


class EndpointFailed(ValueError):
    """The endpoint refused, or did not answer; what it answered before is in the record."""


class Client:
    """A model behind an OpenAI-compatible chat endpoint.

    base_url: None for OpenAI's own, or OPENAI_BASE_URL. key_variable: the environment variable that holds the key, None
    for servers that want none. record: the file that keeps every answer (cache, resumption and spending). concurrency:
    requests at once. requests_per_minute, tokens_per_minute: None for no limit. timeout: seconds a request may take.
    attempts: per question.
    budget_usd, budget_tokens: over everything in the record, never exceeded; what a lost request may have cost counts.
    prices: US dollars per million tokens. options: further fields of every request, such as `seed`.
    Raises ValueError for a budget in money without prices and for a base_url with a password in it.
    """

    def __init__(
        self,
        model: str,
        record: str,
        base_url: str | None = None,
        key_variable: str | None = "OPENAI_API_KEY",
        concurrency: int = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout: float = 120.0,
        attempts: int = 8,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        prices: Prices | None = None,
        options: dict[str, Any] | None = None,
    ):
        if concurrency < 1 or attempts < 1:
            raise ValueError(f"concurrency={concurrency}, attempts={attempts}: both are at least 1.")
        self.model, self.base_url, self.key_variable = (
            model,
            checked_url(base_url or os.environ.get("OPENAI_BASE_URL")),
            key_variable,
        )
        self.concurrency, self.timeout, self.attempts = concurrency, timeout, attempts
        self.requests, self.tokens = Pace(requests_per_minute), Pace(tokens_per_minute)
        self.limits = {"usd": budget_usd, "tokens": budget_tokens}
        self.prices, self.options = prices or Prices(), options or {}
        self.record = Record(record)
        self.budget = self._budget()
        self.notices: set[str] = set()
        self.failed, self.last_failure = 0, ""
        self._without_logprobs = self._tolerant = False
        self._failure: Exception | None = None

    def _budget(self) -> Budget:
        budget = Budget(self.prices, **self.limits)
        budget.add(self.record.tokens)
        return budget

    def check(self) -> None:
        """Raises ValueError when the key is missing, before anything is sent."""
        find_key(self.key_variable)

    def key(self, question: Question) -> str:
        """What the record calls a question."""
        return question.key(self.model, self.base_url, self.options)

    def known(self, question: Question) -> Answer | None:
        """The answer in the record, if it is there."""
        row = self.record.find(self.key(question))
        return Answer(**row) if row else None

    def preview(self, questions: Iterable[Question]) -> dict[str, float | int | None]:
        """Requests still to send, their tokens and US dollars, probably and at most, and what was spent before."""
        asked, before, likely, most, written = set(), set(), 0, 0, 0
        for question in questions:
            key = self.key(question)
            if key in self.record.places:
                before.add(key)
            elif key not in asked:
                asked.add(key)
                likely, most = likely + question.likely_prompt_tokens, most + question.most_prompt_tokens
                written += question.max_tokens
        return {
            "requests": len(asked),
            "answered_before": len(before),
            "prompt_tokens": likely,
            "completion_tokens_at_most": written,
            "usd": self.prices.cost(likely, written),
            "usd_at_most": self.prices.cost(most, written),
            "usd_spent_before": self.budget.spent,
        }

    def ask(self, questions: list[Question], description: str = "questions") -> list[Answer]:
        """Answers in order; equal questions, and those in the record, are not asked again.

        Raises EndpointFailed or BudgetReached in one sentence; all answers until then are in the record.
        """
        self.fill(questions, description, len({self.key(q) for q in questions} - self.record.places.keys()))
        return [self.known(question) for question in questions]

    def fill(
        self, questions: Iterable[Question], description: str, total: int | None = None, tolerant: bool = False
    ) -> int:
        """Bring the answers into the record, taking questions only as they are sent, so that memory stays flat.

        total: of the progress bar. tolerant: questions that get no answer are passed over, and counted.
        Returns how many got none. Raises as `ask` does; a budget ends the run in any case.
        """
        self.failed, self._tolerant = 0, tolerant
        with self.record:
            self.budget = self._budget()
            waiting = self._waiting(questions)
            if first := next(waiting, None):
                asyncio.run(self._ask(chain([first], waiting), description, total))
        return self.failed

    def _waiting(self, questions: Iterable[Question]) -> Iterator[tuple[str, Question]]:
        """Questions that are neither answered nor under way, each once, with their keys."""
        taken = set()
        for question in questions:
            key = self.key(question)
            if key not in self.record.places and key not in taken:
                taken.add(key)
                yield key, question

    async def _ask(self, queue: Iterator, description: str, total: int | None) -> None:
        secret = find_key(self.key_variable)
        self._failure = None
        async with Connection(self.base_url or OPENAI, secret, self.timeout) as http:
            with tqdm(total=total, desc=description, unit="answer", mininterval=0.5) as bar:
                workers = min(self.concurrency, total or self.concurrency)
                await asyncio.gather(*(self._work(http, queue, bar) for _ in range(workers)))
        if self._failure is not None:
            raise type(self._failure)(scrub(str(self._failure), secret)) from None

    async def _work(self, http: Connection, queue: Iterator, bar: tqdm) -> None:
        """Take questions until none is left, or one of the workers failed."""
        for key, question in queue:
            try:
                await self._settle(http, key, question)
            except (EndpointFailed, BudgetReached) as error:
                if self._tolerant and isinstance(error, EndpointFailed):
                    self.failed += 1
                    self.last_failure = str(error)
                    continue
                self._failure = self._failure or error
            if self._failure is not None:
                return
            spent = f"${self.budget.spent:.4f}" if self.budget.spent is not None else "cost unknown"
            tokens = self.budget.prompt_tokens + self.budget.completion_tokens
            bar.set_postfix_str(f"{spent}, {tokens:,} tokens", refresh=False)
            bar.update()

    async def _settle(self, http: Connection, key: str, question: Question) -> None:
        """Ask until there is an answer. Raises EndpointFailed when there will be none."""
        problem = "no attempt"
        for attempt in range(self.attempts):
            without_logprobs = self._without_logprobs
            try:
                return await self._attempt(http, key, question)
            except RequestFailed as error:
                if error.status == 400 and not without_logprobs and "logprobs" in str(error):
                    self._without_logprobs = True
                    self.notices.add(f"{self._where()} refuses logprobs: verdicts are read from the text.")
                    continue
                if not error.passes:
                    raise EndpointFailed(self._refused(error)) from None
                problem, seconds = told(error), wait(error, attempt)
            except Unusable as error:
                problem, seconds = str(error), wait(error, attempt)
            if seconds > LONGEST_WAIT:
                raise EndpointFailed(f"{self._where()} asks to wait {seconds:.0f} seconds ({problem}): run again then.")
            if attempt + 1 < self.attempts:
                await self._sleep(seconds)
        raise EndpointFailed(
            f"{self._where()} gave no answer in {self.attempts} attempts (last: {problem}); answers so far are in "
            f"{self.record.path}: run again to continue."
        )

    async def _attempt(self, http: Connection, key: str, question: Question) -> None:
        """One request, within pace and budget; its answer goes to the record."""
        largest = (question.most_prompt_tokens, question.max_tokens)
        await self.budget.reserve(*largest)
        charged = None
        try:
            await self._sleep(self.requests.delay())
            await self._sleep(self.tokens.delay(question.likely_prompt_tokens + question.max_tokens))
            body = question.body(self.model, logprobs=not self._without_logprobs) | self.options
            charged = dict(zip(("prompt_tokens", "completion_tokens"), largest, strict=True))
            try:
                response = await http.post(question.path, body)
                answer = question.read(response)
            except ValueError as error:  # bytes that are no text are one as well
                raise Unusable(f"a response that is no JSON ({type(error).__name__})") from None
            except RequestFailed as error:
                charged = charged if billed(error) else None
                raise
            if question.top_logprobs and not self._without_logprobs and answer.logprobs is None:
                self.notices.add(f"{self._where()} ignores logprobs: verdicts are read from the text.")
            charged = usage(response, question, answer)
            self.record.answer(key, vars(answer), charged)
            self.budget.add(charged)
            charged = None
        finally:
            if charged is not None:  # sent, without an answer: it may have been billed
                self.record.charge(charged, "no answer")
                self.budget.add(charged)
            await self.budget.settle(*largest)

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless another worker fails meanwhile."""
        end = time.monotonic() + seconds
        while seconds > 0:
            if self._failure is not None:
                raise EndpointFailed("stopped")
            await asyncio.sleep(min(seconds, 1.0))
            seconds = end - time.monotonic()

    def _where(self) -> str:
        return f"model={self.model} at {self.base_url or 'api.openai.com'}"

    def _refused(self, error: RequestFailed) -> str:
        hint = {
            401: f"check the key in {self.key_variable}",
            403: f"check what the key in {self.key_variable} may do",
            404: "check model and base_url",
        }.get(error.status, "check the settings")
        return f"{self._where()} refuses the request ({told(error)}): {hint}."
