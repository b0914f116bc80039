"""A model behind /v1/systemone of `transformers serve` as judge: exact probabilities in one forward pass."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from rlhf_trl_ext.judging import decision
from rlhf_trl_ext.judging.endpoint import HTTPJudge
from rlhf_trl_ext.judging.inquiry import Inquiry, Reading
from rlhf_trl_ext.judging.prompt import Prompt
from rlhf_trl_ext.judging.question import Answer, Question, Unusable


@dataclass(kw_only=True, eq=False)
class ServedJudge(HTTPJudge):
    """See `HTTPJudge`. The endpoint gives no label mass, so none is checked."""

    prompt: str | None = "helpfulness"  # stated again: the identity of a stage reads it here

    def check_prompt(self, prompt: Prompt) -> None:
        """See `LanguageModelJudge.check_prompt`."""
        decision.check_prompt(prompt)

    @property
    def notices(self) -> list[str]:
        """See `Judge`."""
        return [*super().notices, f"model={self.model}: /systemone tells no label mass, so none is checked."]

    def preview_inquiries(self, inquiries: Iterable[Inquiry]) -> dict:
        """See `LanguageModelJudge.preview_inquiries`."""
        return self.client.preview(map(_decision, inquiries))

    def ask(self, inquiries, total=None, tolerant=False):
        """See `LanguageModelJudge.ask`."""
        self.fill(map(_decision, inquiries()), "verdicts", total, 1.0 if tolerant else self.max_unreadable)

    def reading(self, inquiry: Inquiry) -> Reading:
        """See `LanguageModelJudge.reading`."""
        question = _decision(inquiry)
        answer = self.client.known(question)
        if answer is None or answer.problem:
            return Reading(None, None, answer.problem if answer else self.client.problem(question))
        probabilities = {option: math.exp(logprob) for option, logprob in answer.logprobs[0].items()}
        return Reading(decision.value(inquiry.prompt, probabilities), None, answer.text)


def _decision(inquiry: Inquiry) -> "Decision":
    return Decision.of(decision.request(inquiry.prompt, inquiry.material))


@dataclass(frozen=True)
class Decision(Question):
    """A decision as a question to /v1/systemone; its answer's `logprobs` are those of the options."""

    path: ClassVar[str] = "/systemone"

    @classmethod
    def of(cls, request: dict) -> "Decision":
        """asked: what `decision.request` gives."""
        return cls(({"role": "user", "content": json.dumps(request)},), max_tokens=0)

    def body(self, model: str, form=None) -> dict:
        """The request as `transformers serve` takes it."""
        return {"model": model, **json.loads(self.messages[0]["content"])}

    def read(self, response, model: str = "") -> Answer:
        """See `Question.read`."""
        try:
            probabilities = response["answers"]["verdict"]["probabilities"]
            values = {option: float(p) for option, p in probabilities.items()}
            response["usage"] = {"prompt_tokens": response["usage"]["input_tokens"], "completion_tokens": 0}
            model = response.get("model") or model
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unusable(f"an unreadable decision ({type(error).__name__})") from None
        if not decision.are_probabilities(values):
            return Answer("", model, problem="probabilities that are NaN, out of [0, 1] or do not sum to 1")
        logprobs = {option: math.log(max(p, 1e-300)) for option, p in values.items()}
        return Answer(max(logprobs, key=logprobs.get), model, [logprobs])
