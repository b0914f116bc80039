"""Who is asked for labels: a chat endpoint, `transformers serve`, or a model in this process, all by the same calls.

`ask` brings the answers to questions into a record on disk; `reading` looks one up. So nothing is asked twice, a killed
run continues, and memory does not grow with the number of labels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.prompt import LEAST_MASS, Prompt
from rlhf_trl_ext.judging.question import Answer, Question

TOP_LOGPROBS = 20  # OpenAI's most
AGAIN = "\n\nAnswer with exactly one of {allowed} and not a word more."
THINK = "Do not answer yet. First explain in a few sentences what speaks for each side."


@dataclass(frozen=True)
class Inquiry:
    """A prompt file and what is shown by it. examples: worked examples, shown before the material."""

    prompt: Prompt
    values: tuple[tuple[str, str], ...]
    examples: str = ""

    @property
    def material(self) -> str:
        """What is shown."""
        return "\n\n".join(filter(None, (self.examples, self.prompt.material(**dict(self.values)))))

    @property
    def question(self) -> str:
        """Instructions and what is shown, without how to answer."""
        return f"{self.prompt.instructions.strip()}\n\n{self.material}"


class Reading(NamedTuple):
    """What an answer means: probability that the first is better, or the expected score; None for unreadable.

    mass: probability of all verdicts together, None where unknown. text: what was said.
    """

    value: float | None
    mass: float | None
    text: str


UNREAD = Reading(None, None, "")


class Respondent:
    """Somebody who is asked. notices: sentences for the report."""

    name: str
    notices: list[str] = []
    failed = 0  # inquiries of the last `ask` that got no answer

    def check(self, prompt: Prompt) -> None:
        """Raises ValueError when this prompt cannot be put, before anything is sent."""

    def preview(self, inquiries: Iterable[Inquiry]) -> dict:
        """What asking would take."""
        raise NotImplementedError

    def ask(self, inquiries: Callable[[], Iterable[Inquiry]], total: int | None = None, tolerant: bool = False) -> None:
        """Bring all answers into the record. inquiries: called once a pass. tolerant: failures are only counted."""
        raise NotImplementedError

    def reading(self, inquiry: Inquiry) -> Reading:
        """The answer in the record."""
        raise NotImplementedError

    @property
    def cost(self) -> dict:
        """requests, prompt_tokens, completion_tokens, usd (None where unknown) over everything in the record."""
        raise NotImplementedError


class HTTPRespondent(Respondent):
    """A model behind a `Client`. client: makes it from `model` and `base_url`."""

    def __init__(self, client: Callable[..., Client], model: str, base_url: str | None = None):
        self.client, self.name = client(model=model, base_url=base_url), model

    @property
    def notices(self) -> list[str]:
        return sorted(self.client.notices)

    def check(self, prompt: Prompt) -> None:
        self.client.check()

    @property
    def cost(self) -> dict:
        used = self.client.record
        return {"requests": used.requests, **used.tokens, "usd": self.client.prices.cost(*used.tokens.values())}


class ChatRespondent(HTTPRespondent):
    """An OpenAI-compatible chat endpoint; verdicts are read from the log-probabilities of the answer's first token.

    Where the endpoint gives none, or the prompt asks for reasons, verdicts are drawn instead: with k of n for the
    first, `p = (k + 1/2) / (n + 1)`. samples: n. An answer without a readable verdict is asked for once more, more
    strictly. reasons: two passes, first a rationale of at most reason_tokens, then the verdict in its light (chain of
    thought, arXiv:2309.00267).
    """

    def __init__(
        self,
        client: Callable[..., Client],
        model: str,
        base_url: str | None = None,
        samples: int = 8,
        reasons: bool = False,
        reason_tokens: int = 256,
    ):
        super().__init__(client, model, base_url)
        if samples < 1 or reason_tokens < 1:
            raise ValueError(f"samples={samples}, reason_tokens={reason_tokens}: both are at least 1.")
        self.samples, self.reasons, self.reason_tokens = samples, reasons, reason_tokens
        self._drawn = False

    @property
    def notices(self) -> list[str]:
        drawn = [f"model={self.name}: labels come from {self.samples} drawn verdicts each, not from log-probabilities."]
        return super().notices + drawn * self._drawn

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if self.reasons and prompt.pattern is not None:
            raise ValueError(f"prompt={prompt.name} asks for reasons itself: use another prompt, or reasons=false.")

    def preview(self, inquiries: Iterable[Inquiry]) -> dict:
        def questions():
            for inquiry in inquiries:
                if self.reasons:
                    yield self._rationale(inquiry)
                yield self._verdict(inquiry, "x" * 4 * self.reason_tokens if self.reasons else None)

        return self.client.preview(questions())

    def ask(self, inquiries, total=None, tolerant=False):
        self.failed = 0
        passes = [("rationales", self._rationales)] if self.reasons else []
        passes += [("verdicts", self._verdicts), ("again", self._more)]
        for name, questions in passes:
            asked = (question for inquiry in inquiries() for question in questions(inquiry))
            count = None if name == "again" else total
            self.failed += self.client.fill(asked, f"{self.name}, {name}", count, tolerant)

    def reading(self, inquiry: Inquiry) -> Reading:
        answer = self._answer(inquiry)
        if answer is None:
            return UNREAD
        rationale = self.client.known(self._rationale(inquiry)).text if self.reasons else ""
        if self._has_logprobs(inquiry, answer):
            found = self._read(inquiry, answer)
            again = self.client.known(self._stricter(inquiry)) if found.value is None else None
            found = self._read(inquiry, again) if again is not None else found
        else:
            found = self._counted(inquiry)
        return found._replace(text=f"{rationale}\n{found.text}".strip())

    def _read(self, inquiry: Inquiry, answer: Answer) -> Reading:
        if not answer.logprobs:
            return Reading(inquiry.prompt.parsed(answer.text), None, answer.text)
        mass = sum(inquiry.prompt.mass(answer.logprobs[0]).values())
        return Reading(inquiry.prompt.expected(answer.logprobs[0]), mass, answer.text)

    def _counted(self, inquiry: Inquiry) -> Reading:
        """The mean of the drawn verdicts; for pairs `(k + 1/2) / (n + 1)`. Their readable share is the mass."""
        self._drawn = True
        answers = [a for a in map(self.client.known, self._drawn_questions(inquiry)) if a is not None]
        values = [v for v in (inquiry.prompt.parsed(answer.text) for answer in answers) if v is not None]
        mass = len(values) / self.samples
        text = " | ".join(answer.text.strip() for answer in answers)
        if mass < LEAST_MASS:
            return Reading(None, mass, text)
        if inquiry.prompt.kind == "pair":
            return Reading((sum(values) + 0.5) / (len(values) + 1), mass, text)
        return Reading(sum(values) / len(values), mass, text)

    def _has_logprobs(self, inquiry: Inquiry, answer: Answer) -> bool:
        return bool(inquiry.prompt.uses_logprobs and answer.logprobs)

    def _answer(self, inquiry: Inquiry) -> Answer | None:
        known = list(map(self.client.known, self._verdicts(inquiry)))
        return known[0] if known else None

    def _rationales(self, inquiry: Inquiry) -> list[Question]:
        return [self._rationale(inquiry)]

    def _verdicts(self, inquiry: Inquiry) -> list[Question]:
        rationale = self.client.known(self._rationale(inquiry)) if self.reasons else None
        return [] if self.reasons and rationale is None else [self._verdict(inquiry, rationale and rationale.text)]

    def _more(self, inquiry: Inquiry) -> list[Question]:
        """Without log-probabilities, the verdicts to draw; where they cannot be read, a stricter question."""
        answer = self._answer(inquiry)
        if answer is None:
            return []
        if not self._has_logprobs(inquiry, answer):
            return self._drawn_questions(inquiry)
        return [self._stricter(inquiry)] if self._read(inquiry, answer).value is None else []

    def _drawn_questions(self, inquiry: Inquiry) -> list[Question]:
        return [self._changed(inquiry, temperature=1.0, sample=n + 1) for n in range(self.samples)]

    def _stricter(self, inquiry: Inquiry) -> Question:
        return self._changed(inquiry, AGAIN.format(allowed=", ".join(inquiry.prompt.allowed)))

    def _changed(self, inquiry: Inquiry, suffix: str = "", **settings) -> Question:
        (question,) = self._verdicts(inquiry)
        *before, last = question.messages
        messages = (*before, {**last, "content": last["content"] + suffix})
        top = 0 if settings else question.top_logprobs
        return Question(messages, question.max_tokens, top_logprobs=top, **settings)

    def _rationale(self, inquiry: Inquiry) -> Question:
        return Question(({"role": "user", "content": f"{inquiry.question}\n\n{THINK}"},), self.reason_tokens)

    def _verdict(self, inquiry: Inquiry, rationale: str | None) -> Question:
        answer, prompt = inquiry.prompt.answer.strip(), inquiry.prompt
        messages = [{"role": "user", "content": f"{inquiry.question}\n\n{answer}"}]
        if rationale is not None:
            messages = [{"role": "user", "content": f"{inquiry.question}\n\n{THINK}"}]
            messages += [{"role": "assistant", "content": rationale}, {"role": "user", "content": answer}]
        return Question(tuple(messages), prompt.max_tokens, top_logprobs=TOP_LOGPROBS if prompt.uses_logprobs else 0)
