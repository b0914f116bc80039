"""Prompts put to transformers' `decision` pipeline: in this process, or over HTTP to /v1/systemone of
`transformers serve`. One forward pass gives a probability for every verdict, and both give the same ones.
"""

import functools
import math
import string

from rlhf_trl_ext.judging.prompt import ROUNDING, Prompt

MEANING = {"first": "{0} is better", "second": "{1} is better", "tie": "both are equally good"}


def request(prompt: Prompt, material: str) -> dict:
    """The pipeline's request: the material is the state, the verdicts are the options. The answer format is its own."""
    if prompt.kind == "pair":
        names = {meaning: verdict for verdict, meaning in prompt.verdicts.items()}
        criteria = {m: MEANING[m].format(names["first"], names["second"]) for m in prompt.verdicts.values()}
        question = {"type": "choice", "instructions": prompt.instructions.strip(), "criteria": criteria}
    else:
        question = {"type": "score", "instructions": prompt.instructions.strip(), "criteria": list(prompt.allowed)}
    return {"state": material, "questions": {"verdict": question}}


def value(prompt: Prompt, probabilities: dict[str, float]) -> float:
    """Probability that what stands first is better, a tie counting half; for single prompts the expected score."""
    if prompt.kind == "pair":
        return probabilities["first"] + 0.5 * probabilities.get("tie", 0.0)
    return prompt.scale[0] + sum(int(level) * probability for level, probability in probabilities.items())


def are_probabilities(values: dict[str, float]) -> bool:
    """Whether these are finite numbers of 0 to 1 that sum to 1."""
    return all(0 <= p <= 1 + ROUNDING for p in values.values()) and abs(sum(values.values()) - 1) <= ROUNDING


def check_prompt(prompt: Prompt) -> None:
    """Raises ValueError for a prompt that asks for reasons, which a decision does not give."""
    if prompt.pattern is not None:
        raise ValueError(
            f"prompt={prompt.name} asks for reasons, but a decision gives none: use judge=endpoint, or another prompt."
        )


class LocalDecisions:
    """Any chat model by folder or hub id, or a decision model, in this process.

    chat_template: for tokenizers without one, a name in `rlhf_trl_ext/chat_templates` or a file.
    """

    def __init__(
        self,
        model: str,
        prompt: Prompt,
        dtype: str = "auto",
        device: str | None = None,
        chat_template: str | None = None,
    ):
        self.model, self.prompt = model, prompt
        self.options = {"dtype": dtype, "device": device}
        self.chat_template = None
        if chat_template:
            from rlhf_trl_ext.models.loading import template  # imports TRL

            self.chat_template = template(chat_template)

    def __call__(self, material: str) -> tuple[dict[str, float], float | None]:
        """Probability of each option, and the share of the next token's whole distribution that the labels have.

        The share is None for models with a decision head. Raises ValueError when the tokenizer lacks a chat template or
        single-token labels.
        """
        pipeline, seen = self.pipeline, []
        keep = pipeline.model.register_forward_hook(
            lambda module, args, outputs: seen.append(getattr(outputs, "logits", None))
        )
        try:
            answer = pipeline(request(self.prompt, material))["verdict"]["probabilities"]
        finally:
            keep.remove()
        return answer, self._mass(seen[-1] if seen else None)

    def _mass(self, logits) -> float | None:
        if logits is None or hasattr(self.pipeline.model, "decide"):  # a decision head scores options, not tokens
            return None
        kind = "choice" if self.prompt.kind == "pair" else "score"
        labels = (self.pipeline.decision_config.labels.get(kind) or string.ascii_uppercase)[: self._options]
        ids = list(self.pipeline.label_token_ids(tuple(labels)))
        mass = float(logits[0, -1].float().softmax(-1)[ids].sum())
        return mass if math.isfinite(mass) else None

    @property
    def _options(self) -> int:
        return len(self.prompt.verdicts or self.prompt.allowed)

    @functools.cached_property
    def pipeline(self):
        """The decision pipeline; the weights load here."""
        from transformers import pipeline
        from transformers.decision import DecisionConfig

        from rlhf_trl_ext.configuration.paths import adapter_base, adapter_folder, split_revision
        from rlhf_trl_ext.models.pretrained import load_policy, load_tokenizer

        (name, revision), model = split_revision(self.model), self.model
        tokenizer = load_tokenizer(self.model)
        if tokenizer.chat_template is None:
            if self.chat_template is None:
                raise ValueError(
                    f"judge.model={self.model}: its tokenizer has no chat template; give judge.chat_template=plain."
                )
            tokenizer.chat_template = self.chat_template
        if folder := adapter_folder(self.model):
            model = load_policy(folder, dtype=self.options["dtype"])
            name, revision = split_revision(adapter_base(folder))
        elif revision:
            model = load_policy(name, revision, dtype=self.options["dtype"])
        decision = DecisionConfig.from_pretrained(name, revision=revision)
        kind = "choice" if self.prompt.kind == "pair" else "score"
        if kind not in decision.labels:
            decision.labels = {**decision.labels, kind: self._labels(tokenizer)}
        return pipeline("decision", model, tokenizer=tokenizer, decision_config=decision, **self.options)

    def _labels(self, tokenizer) -> list[str]:
        """The verdicts themselves where each is one token, else the first capital letters that are."""
        for candidates in (self.prompt.allowed, string.ascii_uppercase):
            ids = {label: tokenizer(label, add_special_tokens=False)["input_ids"] for label in candidates}
            single = [label for label, tokens in ids.items() if len(tokens) == 1]
            if len(single) >= self._options:
                return single[: self._options]
        raise ValueError(
            f"judge.model={self.model}: its tokenizer has fewer than {self._options} letters as single tokens."
        )
