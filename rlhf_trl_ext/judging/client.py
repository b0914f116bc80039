"""A model behind an OpenAI-compatible endpoint: what is known of it, and questions brought into the record."""

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from rlhf_trl_ext.judging.limits import Pace, Prices, SpendingLimit
from rlhf_trl_ext.judging.question import Answer, Question
from rlhf_trl_ext.judging.record import Record
from rlhf_trl_ext.judging.request import Form
from rlhf_trl_ext.judging.secrets import checked_url, find_key
from rlhf_trl_ext.quantities import Amount, Count, Natural, Positive


class Client:
    """A model behind an OpenAI-compatible chat endpoint.

    base_url: None for OpenAI's own, or OPENAI_BASE_URL. key_variable: the environment variable that holds the key, None
    for servers that want none. record: the file that keeps every answer (cache, resumption and spending). concurrency:
    requests at once. requests_per_minute, tokens_per_minute: None for no limit. timeout: seconds a request may take.
    attempts: per question. api_version: of Azure, None for OPENAI_API_VERSION or 2024-10-21; it, an address of Azure
    or AZURE in key_variable make the endpoint Azure's. thinking_tokens: that a model may spend on reasoning before its
    answer; None: none, and 2,048 once it shows that it reasons.
    budget_usd, budget_tokens: over everything in the record, never exceeded; what a lost request may have cost counts.
    prices: US dollars per million tokens. options: further fields of every request, as `seed`; null leaves one out.
    Raises ValueError for a budget in money without prices and for a base_url with a password in it.
    """

    def __init__(
        self,
        model: str,
        record: str,
        base_url: str | None = None,
        key_variable: str | None = "OPENAI_API_KEY",
        concurrency: Count = 32,
        requests_per_minute: Positive | None = None,
        tokens_per_minute: Positive | None = None,
        timeout: Positive = 120.0,
        attempts: Count = 8,
        api_version: str | None = None,
        thinking_tokens: Natural | None = None,
        budget_usd: Amount | None = None,
        budget_tokens: Natural | None = None,
        prices: Prices | None = None,
        options: dict[str, Any] | None = None,
    ):
        if concurrency < 1 or attempts < 1 or not timeout > 0:
            raise ValueError(
                f"concurrency={concurrency}, attempts={attempts}, timeout={timeout}: the first two are at least 1, the "
                "last is above 0."
            )
        self.base_url = checked_url(base_url or os.environ.get("OPENAI_BASE_URL"))
        self.model, self.key_variable, self.api_version = model, key_variable, api_version
        self.concurrency, self.timeout, self.attempts = concurrency, timeout, attempts
        self.requests, self.tokens = Pace(requests_per_minute), Pace(tokens_per_minute)
        self.limits = {"usd": budget_usd, "tokens": budget_tokens}
        self.prices, self.form = prices or Prices(), Form(options, thinking_tokens)
        self.record = Record(record)
        self.budget = self._budget()
        self.notices: set[str] = set()
        self.failures: dict[str, str] = {}  # key of a question -> why it got no answer

    def _budget(self) -> SpendingLimit:
        budget = SpendingLimit(self.prices, **self.limits)
        budget.add(self.record.tokens)
        return budget

    def check(self) -> None:
        """Raises ValueError when the key is missing, before anything is sent."""
        find_key(self.key_variable)

    def key(self, question: Question) -> str:
        """What the record calls a question."""
        thinking = {"thinking_tokens": self.form.thinking_tokens} if self.form.thinking_tokens else {}
        return question.key(self.model, self.base_url, self.form.options | thinking)

    def known(self, question: Question) -> Answer | None:
        """The answer in the record, if it is there."""
        row = self.record.find(self.key(question))
        return Answer(**row) if row else None

    @property
    def last_failure(self) -> str:
        """Why the last question that failed got no answer."""
        return next(reversed(self.failures.values()), "")

    def problem(self, question: Question) -> str:
        """Why a question got no answer."""
        return self.failures.get(self.key(question), "not asked")

    def preview(self, questions: Iterable[Question]) -> dict[str, float | int | None]:
        """Requests still to send, their tokens and US dollars, probably and at most, and what was spent before."""
        keys, before, likely, most, written = set(), set(), 0, 0, 0
        for question in questions:
            key = self.key(question)
            if key in self.record.places:
                before.add(key)
            elif key not in keys:
                keys.add(key)
                likely, most = likely + question.likely_prompt_tokens, most + question.most_prompt_tokens
                written += self.form.largest(question.max_tokens)
        return {
            "requests": len(keys),
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
        total = len({self.key(q) for q in questions} - self.record.places.keys())
        self.fill(questions, description, total, max_failed=0.0)
        return [self.known(question) for question in questions]

    def fill(
        self, questions: Iterable[Question], description: str, total: int | None = None, max_failed: float = 1.0
    ) -> int:
        """Bring the answers into the record, taking questions only as they are sent, so that memory stays flat.

        total: of the progress bar. max_failed: the share of questions without an answer that is passed over, and
        counted; more end the run, as many failures one after the other do, unless it is 1.
        Returns how many got none. Raises as `ask` does; a budget ends the run in any case.
        """
        from rlhf_trl_ext.judging.session import Session  # imports openai, which takes a second

        with self.record:
            self.budget = self._budget()
            waiting = self._waiting(questions)
            first = next(waiting, None)
            return Session(self, max_failed).run(chain([first], waiting), description, total) if first else 0

    def _waiting(self, questions: Iterable[Question]) -> Iterator[tuple[str, Question]]:
        """Questions that are neither answered nor under way, each once, with their keys."""
        taken = set()
        for question in questions:
            key = self.key(question)
            if key not in self.record.places and key not in taken:
                taken.add(key)
                yield key, question

    def where(self) -> str:
        """The endpoint, for messages."""
        return f"model={self.model} at {self.base_url or 'api.openai.com'}"
