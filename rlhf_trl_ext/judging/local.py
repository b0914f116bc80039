"""A language model in this process as judge: transformers' `decision` pipeline, one forward pass an inquiry."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tqdm import tqdm

from rlhf_trl_ext.judging import decision
from rlhf_trl_ext.judging.inquiry import Inquiry, Reading
from rlhf_trl_ext.judging.language_model import LanguageModelJudge
from rlhf_trl_ext.judging.prompt import LEAST_MASS, Prompt
from rlhf_trl_ext.judging.record import Record

NOTHING_USED = {"prompt_tokens": 0, "completion_tokens": 0}


@dataclass(kw_only=True, eq=False)
class LocalJudge(LanguageModelJudge):
    """Any chat model by folder or hub id, or a decision model; gives a probability for every allowed verdict.

    record: the file of its answers. A prompt's instructions and material are used, its answer format is the pipeline's,
    so prompts that ask for reasons first are refused. chat_template: for tokenizers without one, a name in
    `rlhf_trl_ext/chat_templates` or a file. least_mass: of the next token's probability that the verdicts must have
    together, or the answer is unreadable.
    """

    prompt: str | None = "helpfulness"  # stated again: the identity of a stage reads it here
    record: str
    dtype: str = "auto"
    device: str | None = None
    chat_template: str | None = None
    least_mass: float = LEAST_MASS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.answers = Record(self.record)
        self.deciders: dict[tuple, decision.LocalDecisions] = {}
        self._identity = ""

    def check_prompt(self, prompt: Prompt) -> None:
        """See `LanguageModelJudge.check_prompt`."""
        decision.check_prompt(prompt)

    @property
    def cost(self) -> dict:
        """See `Judge`."""
        return {"requests": self.answers.requests, **NOTHING_USED, "usd": 0.0}

    def preview_inquiries(self, inquiries: Iterable[Inquiry]) -> dict:
        """See `LanguageModelJudge.preview_inquiries`."""
        keys = {self._key(inquiry) for inquiry in inquiries} - self.answers.places.keys()
        return {"requests": 0, "forward_passes": len(keys), "usd": 0.0}

    def ask(self, inquiries, total=None, tolerant=False):
        """See `LanguageModelJudge.ask`. Raises ValueError for a tokenizer without a chat template or labels."""
        with self.answers:
            for inquiry in tqdm(inquiries(), total=total, desc=self.name, unit="answer", mininterval=0.5):
                key = self._key(inquiry)
                if key not in self.answers.places:
                    probabilities, mass = self._decider(inquiry.prompt)(inquiry.material)
                    if not decision.are_probabilities(probabilities):
                        probabilities = None
                    self.answers.answer(key, {"probabilities": probabilities, "mass": mass}, NOTHING_USED)

    def reading(self, inquiry: Inquiry) -> Reading:
        """See `LanguageModelJudge.reading`."""
        answer = self.answers.find(self._key(inquiry))
        if answer is None or answer["probabilities"] is None:
            return Reading(None, None, "not asked" if answer is None else "probabilities that are no numbers")
        probabilities, mass = answer["probabilities"], answer["mass"]
        readable = mass is None or mass >= self.least_mass
        text = max(probabilities, key=probabilities.get)
        return Reading(decision.value(inquiry.prompt, probabilities) if readable else None, mass, text)

    def _decider(self, prompt: Prompt) -> decision.LocalDecisions:
        key = (prompt.name, tuple(prompt.allowed))
        if key not in self.deciders:
            options = {"dtype": self.dtype, "device": self.device, "chat_template": self.chat_template}
            self.deciders[key] = decision.LocalDecisions(self.model, prompt, **options)
        return self.deciders[key]

    def _key(self, inquiry: Inquiry) -> str:
        if not self._identity:
            from rlhf_trl_ext.stages.identity import digest

            # the weights and the template themselves, not only where they are
            settings = {"model": self.model, "dtype": self.dtype, "chat_template": self.chat_template}
            self._identity = digest(settings)
        request = json.dumps([self._identity, decision.request(inquiry.prompt, inquiry.material)], sort_keys=True)
        return hashlib.sha256(request.encode()).hexdigest()
