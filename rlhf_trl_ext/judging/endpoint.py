"""A chat model behind an OpenAI-compatible endpoint as judge.

Answers go into a record on disk and are looked up there: nothing is asked twice, a killed run continues, and memory
does not grow with the number of pairs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.inquiry import Inquiry, Reading
from rlhf_trl_ext.judging.language_model import LanguageModelJudge
from rlhf_trl_ext.judging.prompt import LEAST_MASS, Prompt
from rlhf_trl_ext.judging.question import Answer, Question
from rlhf_trl_ext.judging.request import TOP_LOGPROBS
from rlhf_trl_ext.quantities import Count

STRICTER = "\n\nAnswer with exactly one of {allowed} and not a word more."
STRICTER_PATTERN = "\n\nEnd with the verdict in exactly the form that was asked for; without it nothing counts."
THINK = "Do not answer yet. First explain in a few sentences what speaks for each side."


@dataclass(kw_only=True, eq=False)
class HTTPJudge(LanguageModelJudge):
    """A language model behind a `Client`. client: makes it from `model` and `base_url`."""

    may_answer_later = True
    client: Callable[..., Client]
    base_url: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.client = self.client(model=self.model, base_url=self.base_url)

    @property
    def notices(self) -> list[str]:
        """See `Judge`."""
        failed = len(self.client.failures)
        notices = [f"model={self.model}: {failed} questions got no answer, the last: {self.client.last_failure}"]
        return sorted(self.client.notices) + notices * bool(failed)

    @property
    def cost(self) -> dict:
        """See `Judge`; over everything in the record."""
        used = self.client.record
        return {"requests": used.requests, **used.tokens, "usd": self.client.prices.cost(*used.tokens.values())}

    def check(self) -> None:
        """Raises ValueError when the key is missing."""
        self.client.check()

    def fill(self, questions: Iterable[Question], name: str, total: int | None, max_failed: float) -> None:
        """Bring answers into the record."""
        self.client.fill(questions, f"{self.name}, {name}", total, max_failed)


@dataclass(kw_only=True, eq=False)
class EndpointJudge(HTTPJudge):
    """Verdicts are read from the log-probabilities of the token that holds the verdict.

    Where the endpoint gives none, or the prompt asks for reasons, the answer's text decides; with samples > 1, for
    prompts that ask for the verdict alone, that many verdicts are drawn: with k of n for the first,
    `p = (k + 1/2) / (n + 1)`. An answer without a readable verdict is asked for once more, more strictly. reasons: two
    passes, first a rationale of at most reason_tokens, then the verdict in its light (chain of thought,
    arXiv:2309.00267).
    """

    prompt: str | None = "helpfulness"  # stated again: the identity of a stage reads it here
    samples: Count = 1
    reasons: bool = False
    reason_tokens: Count = 256

    def __post_init__(self) -> None:
        if self.samples < 1 or self.reason_tokens < 1:
            raise ValueError(f"samples={self.samples}, reason_tokens={self.reason_tokens}: both are at least 1.")
        super().__post_init__()
        self._sampled = False

    @property
    def notices(self) -> list[str]:
        """See `Judge`."""
        notice = f"model={self.model}: {self.samples} drawn verdicts each, not from log-probabilities."
        return super().notices + [notice] * self._sampled

    def check_prompt(self, prompt: Prompt) -> None:
        """See `LanguageModelJudge.check_prompt`."""
        if self.reasons and prompt.pattern is not None:
            raise ValueError(f"prompt={prompt.name} asks for reasons itself: use another prompt, or reasons=false.")

    def preview_inquiries(self, inquiries: Iterable[Inquiry]) -> dict:
        """See `LanguageModelJudge.preview_inquiries`."""

        def questions():
            for inquiry in inquiries:
                if self.reasons:
                    yield self._rationale(inquiry)
                yield self._verdict(inquiry, "x" * 4 * self.reason_tokens if self.reasons else None)

        return self.client.preview(questions())

    def ask(self, inquiries, total=None, tolerant=False):
        """See `LanguageModelJudge.ask`. Raises EndpointFailed when too many questions get no answer."""
        limit = 1.0 if tolerant else self.max_unreadable
        passes = [("rationales", self._rationales, limit)] if self.reasons else []
        passes += [("verdicts", self._verdicts, limit), ("once more", self._more, 1.0)]
        for name, questions, max_failed in passes:
            pending = (question for inquiry in inquiries() for question in questions(inquiry))
            self.fill(pending, name, None if name == "once more" else total, max_failed)

    def reading(self, inquiry: Inquiry) -> Reading:
        """See `LanguageModelJudge.reading`."""
        answer = self._answer(inquiry)
        if answer is None:
            unanswered = self._verdicts(inquiry) or self._rationales(inquiry)
            return Reading(None, None, self.client.problem(unanswered[0]))
        rationale = self.client.known(self._rationale(inquiry)).text if self.reasons else ""
        result = self._counted(inquiry) if self._draws(inquiry, answer) else self._read(inquiry, answer)
        if result.value is None and not answer.problem and not self._draws(inquiry, answer):
            stricter = self.client.known(self._stricter(inquiry))
            result = self._read(inquiry, stricter) if stricter is not None else result
        return result._replace(text=f"{rationale}\n{result.text}".strip())

    def _read(self, inquiry: Inquiry, answer: Answer) -> Reading:
        if answer.problem:
            return Reading(None, None, f"{answer.problem} {answer.text}".strip())
        if not (inquiry.prompt.uses_logprobs and answer.logprobs):
            return Reading(inquiry.prompt.parsed(answer.text), None, answer.text)
        mass = inquiry.prompt.mass(answer.logprobs[0])
        return Reading(inquiry.prompt.expected(answer.logprobs[0]), mass and sum(mass.values()), answer.text)

    def _counted(self, inquiry: Inquiry) -> Reading:
        """The mean of the drawn verdicts; for pairs `(k + 1/2) / (n + 1)`. Their readable share is the mass."""
        self._sampled = True
        answers = [a for a in map(self.client.known, self._sample_questions(inquiry)) if a is not None]
        values = [v for v in (inquiry.prompt.parsed(answer.text) for answer in answers) if v is not None]
        mass = len(values) / self.samples
        text = " | ".join(answer.text.strip() for answer in answers)
        if mass < LEAST_MASS:
            return Reading(None, mass, text)
        if inquiry.prompt.kind == "pair":
            return Reading((sum(values) + 0.5) / (len(values) + 1), mass, text)
        return Reading(sum(values) / len(values), mass, text)

    def _draws(self, inquiry: Inquiry, answer: Answer) -> bool:
        """Whether verdicts are drawn: where log-probabilities would be read, but there are none."""
        return self.samples > 1 and inquiry.prompt.uses_logprobs and not answer.logprobs and not answer.problem

    def _answer(self, inquiry: Inquiry) -> Answer | None:
        known = list(map(self.client.known, self._verdicts(inquiry)))
        return known[0] if known else None

    def _rationales(self, inquiry: Inquiry) -> list[Question]:
        return [self._rationale(inquiry)]

    def _verdicts(self, inquiry: Inquiry) -> list[Question]:
        rationale = self.client.known(self._rationale(inquiry)) if self.reasons else None
        return [] if self.reasons and rationale is None else [self._verdict(inquiry, rationale and rationale.text)]

    def _more(self, inquiry: Inquiry) -> list[Question]:
        """Without log-probabilities, the verdicts to draw; where the answer cannot be read, a stricter question."""
        answer = self._answer(inquiry)
        if answer is None or answer.problem:
            return []
        if self._draws(inquiry, answer):
            return self._sample_questions(inquiry)
        return [self._stricter(inquiry)] if self._read(inquiry, answer).value is None else []

    def _sample_questions(self, inquiry: Inquiry) -> list[Question]:
        return [self._changed(inquiry, temperature=1.0, sample=n + 1) for n in range(self.samples)]

    def _stricter(self, inquiry: Inquiry) -> Question:
        suffix = (
            STRICTER_PATTERN if inquiry.prompt.pattern else STRICTER.format(allowed=", ".join(inquiry.prompt.allowed))
        )
        return self._changed(inquiry, suffix)

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
