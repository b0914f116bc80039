"""Respondents that give a probability for every verdict in one forward pass: this process, or `transformers serve`."""

import hashlib
import json
import math
from collections.abc import Iterable

from tqdm import tqdm

from rlhf_trl_ext.judging import decision
from rlhf_trl_ext.judging.prompt import LEAST_MASS, Prompt
from rlhf_trl_ext.judging.record import Record
from rlhf_trl_ext.judging.respondents import UNREAD, HTTPRespondent, Inquiry, Reading, Respondent

NOTHING_USED = {"prompt_tokens": 0, "completion_tokens": 0}


class ServedRespondent(HTTPRespondent):
    """A model behind /v1/systemone of `transformers serve`. It gives no label mass, so none is checked."""

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        decision.check_prompt(prompt, "prompt", "labeller=endpoint")

    @property
    def notices(self) -> list[str]:
        return [
            *super().notices,
            f"model={self.name}: /systemone tells no label mass, so none is checked.",
        ]

    def preview(self, inquiries: Iterable[Inquiry]) -> dict:
        return self.client.preview(map(_decision, inquiries))

    def ask(self, inquiries, total=None, tolerant=False):
        self.failed = self.client.fill(map(_decision, inquiries()), self.name, total, tolerant)

    def reading(self, inquiry: Inquiry) -> Reading:
        answer = self.client.known(_decision(inquiry))
        if answer is None:
            return UNREAD
        probabilities = {option: math.exp(logprob) for option, logprob in answer.logprobs[0].items()}
        return Reading(decision.value(inquiry.prompt, probabilities), None, answer.text)


class LocalRespondent(Respondent):
    """Any chat model, or a decision model, in this process: a folder or a hub id. record: the file of its answers.

    chat_template: for tokenizers without one, a name in `rlhf_trl_ext/chat_templates` or a file. least_mass: of the
    next token's probability that the verdicts must have together, or the answer is unreadable.
    """

    def __init__(
        self,
        model: str,
        record: str,
        dtype: str = "auto",
        device: str | None = None,
        chat_template: str | None = None,
        least_mass: float = LEAST_MASS,
    ):
        from rlhf_trl_ext.stages.identity import digest

        self.name, self.record, self.least_mass = model, Record(record), least_mass
        self.options = {"dtype": dtype, "device": device, "chat_template": chat_template, "where": "labeller"}
        # The weights and the template themselves, not only where they are.
        self.identity = digest({"model": model, "dtype": dtype, "chat_template": chat_template})
        self.deciders: dict[tuple, decision.LocalDecisions] = {}

    def check(self, prompt: Prompt) -> None:
        decision.check_prompt(prompt, "prompt", "labeller=endpoint")

    def preview(self, inquiries: Iterable[Inquiry]) -> dict:
        asked = {self._key(inquiry) for inquiry in inquiries} - self.record.places.keys()
        return {"requests": 0, "forward_passes": len(asked), "usd": 0.0}

    def ask(self, inquiries, total=None, tolerant=False):
        with self.record:
            for inquiry in tqdm(inquiries(), total=total, desc=self.name, unit="answer", mininterval=0.5):
                key = self._key(inquiry)
                if key not in self.record.places:
                    probabilities, mass = self._decider(inquiry.prompt)(inquiry.material)
                    self.record.answer(key, {"probabilities": probabilities, "mass": mass}, NOTHING_USED)

    def reading(self, inquiry: Inquiry) -> Reading:
        found = self.record.find(self._key(inquiry))
        if found is None:
            return UNREAD
        probabilities, mass = found["probabilities"], found["mass"]
        text = max(probabilities, key=probabilities.get)
        readable = mass is None or mass >= self.least_mass
        return Reading(decision.value(inquiry.prompt, probabilities) if readable else None, mass, text)

    @property
    def cost(self) -> dict:
        return {"requests": self.record.requests, **NOTHING_USED, "usd": 0.0}

    def _decider(self, prompt: Prompt) -> decision.LocalDecisions:
        key = (prompt.name, tuple(prompt.allowed))
        if key not in self.deciders:
            self.deciders[key] = decision.LocalDecisions(self.name, prompt, **self.options)
        return self.deciders[key]

    def _key(self, inquiry: Inquiry) -> str:
        asked = json.dumps([self.identity, decision.request(inquiry.prompt, inquiry.material)], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()


def _decision(inquiry: Inquiry) -> decision.Decision:
    return decision.Decision.of(decision.request(inquiry.prompt, inquiry.material))
