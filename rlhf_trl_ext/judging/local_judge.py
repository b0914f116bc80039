"""A language model in this process as judge: transformers' `decision` pipeline, one forward pass a question."""

from tqdm import tqdm

from rlhf_trl_ext.judging.decision import LocalDecisions, check_prompt, value
from rlhf_trl_ext.judging.judge import Judge, Verdict, by_score
from rlhf_trl_ext.judging.llm_judge import combine
from rlhf_trl_ext.judging.prompt import as_text, load


class LocalJudge(Judge):
    """Any chat model by folder or hub id, or a decision model; gives a probability for every allowed verdict.

    prompt: a name in `rlhf_trl_ext/judging/prompts`, or a file; its instructions and material are used, its answer
    format is the pipeline's, so prompts that ask for reasons first are refused. chat_template: for tokenizers without
    one, a name in `rlhf_trl_ext/chat_templates` or a file. Both orders of every pair, as for judges over HTTP.
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
        check_prompt(self.prompt, "judge.prompt", "judge=endpoint")
        self.both_orders, self.name = both_orders, f"{model}:{self.prompt.name}"
        self.decide = LocalDecisions(model, self.prompt, dtype, device, chat_template)

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`. Raises ValueError when the tokenizer lacks a chat template or single-token labels."""
        if self.prompt.kind == "single":
            scores = [[self._value(row, response=row["completion"]) for row in rows] for rows in (first, second)]
            return by_score(*scores)
        verdicts = []
        for a, b in tqdm(list(zip(first, second, strict=True)), desc=self.name, unit="pair"):
            if a["completion"].strip() == b["completion"].strip():
                verdicts.append(Verdict(0.5, 0.5))
                continue
            shown_first = self._value(a, first=a["completion"], second=b["completion"])
            shown_second = None
            if self.both_orders:
                shown_second = 1 - self._value(a, first=b["completion"], second=a["completion"])
            verdicts.append(combine(shown_first, shown_second, asked=1 + self.both_orders))
        return verdicts

    def _value(self, row: dict, **shown: str) -> float:
        """Probability that what stands first is better, or the expected score."""
        probabilities, _ = self.decide(self.prompt.material(prompt=as_text(row["prompt"]), **shown))
        return value(self.prompt, probabilities)
