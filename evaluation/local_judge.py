"""A language model in this process as judge: transformers' `decision` pipeline, one forward pass a question."""

import functools
import string

from tqdm import tqdm

from evaluation.judge import Judge, Verdict, by_score
from evaluation.llm_judge import combine
from evaluation.prompt import as_text, load
from rlhf_trl_ext.models.loading import template

MEANING = {"first": "{0} is better", "second": "{1} is better", "tie": "both are equally good"}


class LocalJudge(Judge):
    """Any chat model by folder or hub id, or a decision model; gives a probability for every allowed verdict.

    prompt: a name in `evaluation/prompts`, or a file; its instructions and material are used, its answer format is the
    pipeline's, so prompts that ask for reasons first are refused. chat_template: for tokenizers without one, a name in
    `rlhf_trl_ext/chat_templates` or a file. Both orders of every pair, as for judges over HTTP.
    """

    def __init__(
        self,
        model: str,
        prompt: str,
        both_orders: bool = True,
        dtype: str = "auto",
        device: str | None = None,
        chat_template: str | None = None,
    ):
        self.prompt = load(prompt)
        if self.prompt.pattern is not None:
            raise ValueError(
                f"judge.prompt={prompt} asks for reasons, but a decision gives none: "
                "use judge=endpoint, or another prompt."
            )
        self.model, self.both_orders, self.name = model, both_orders, f"{model}:{self.prompt.name}"
        self.options = {"dtype": dtype, "device": device}
        self.chat_template = template(chat_template) if chat_template else None

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`. Raises ValueError when the tokenizer lacks a chat template or single-token labels."""
        decide = self._decide
        if self.prompt.kind == "single":
            return by_score(*([self._score(decide, row) for row in rows] for rows in (first, second)))
        verdicts = []
        for a, b in tqdm(list(zip(first, second, strict=True)), desc=self.name, unit="pair"):
            if a["completion"].strip() == b["completion"].strip():
                verdicts.append(Verdict(0.5, 0.5))
                continue
            shown_first = self._preference(decide, a, b)
            shown_second = 1 - self._preference(decide, b, a) if self.both_orders else None
            verdicts.append(combine(shown_first, shown_second, asked=1 + self.both_orders))
        return verdicts

    @functools.cached_property
    def _decide(self):
        from transformers import AutoTokenizer, pipeline
        from transformers.decision import DecisionConfig

        tokenizer = AutoTokenizer.from_pretrained(self.model)
        if tokenizer.chat_template is None:
            if self.chat_template is None:
                raise ValueError(
                    f"judge.model={self.model}: its tokenizer has no chat template; give judge.chat_template=plain."
                )
            tokenizer.chat_template = self.chat_template
        decision = DecisionConfig.from_pretrained(self.model)
        kind = "choice" if self.prompt.kind == "pair" else "score"
        if kind not in decision.labels:
            decision.labels = {**decision.labels, kind: self._labels(tokenizer)}
        return pipeline("decision", self.model, tokenizer=tokenizer, decision_config=decision, **self.options)

    def _labels(self, tokenizer) -> list[str]:
        """The verdicts themselves where each is one token, else the first capital letters that are."""
        needed = len(self.prompt.allowed)
        for candidates in (self.prompt.allowed, string.ascii_uppercase):
            ids = {label: tokenizer(label, add_special_tokens=False)["input_ids"] for label in candidates}
            single = [label for label, tokens in ids.items() if len(tokens) == 1]
            if len(single) >= needed:
                return single[:needed]
        raise ValueError(f"judge.model={self.model}: its tokenizer has fewer than {needed} letters as single tokens.")

    def _preference(self, decide, first: dict, second: dict) -> float:
        """Probability that what stands first is better, a tie counting half."""
        material = self.prompt.material(
            prompt=as_text(first["prompt"]), first=first["completion"], second=second["completion"]
        )
        names = {meaning: verdict for verdict, meaning in self.prompt.verdicts.items()}
        criteria = {
            meaning: MEANING[meaning].format(names["first"], names["second"])
            for meaning in self.prompt.verdicts.values()
        }
        question = {"type": "choice", "instructions": self.prompt.instructions.strip(), "criteria": criteria}
        answer = decide({"state": material, "questions": {"verdict": question}})["verdict"]["probabilities"]
        return answer["first"] + 0.5 * answer.get("tie", 0.0)

    def _score(self, decide, row: dict) -> float:
        """The expected score: the pipeline counts levels from 0."""
        material = self.prompt.material(prompt=as_text(row["prompt"]), response=row["completion"])
        question = {
            "type": "score",
            "instructions": self.prompt.instructions.strip(),
            "criteria": list(self.prompt.allowed),
        }
        answer = decide({"state": material, "questions": {"verdict": question}})
        return self.prompt.scale[0] + answer["verdict"]["score"]
