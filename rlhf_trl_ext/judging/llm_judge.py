"""A language model as judge: over HTTP, both orders of every pair, unreadable answers counted apart."""

import hashlib
from collections.abc import Callable

from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.judge import Judge, Verdict, by_score
from rlhf_trl_ext.judging.prompt import Prompt, as_text, load
from rlhf_trl_ext.judging.question import Answer, Question

TOP_LOGPROBS = 5
AGAIN = "\n\nAnswer with exactly one of {allowed} and not a word more."
AGAIN_PATTERN = "\n\nEnd with the verdict in exactly the form that was asked for; without it nothing counts."


class LLMJudge(Judge):
    """Asks a chat model which of two samples is better, or for the score of each.

    client: makes the client from `model` and `base_url`. prompt: a name in `rlhf_trl_ext/judging/prompts`, or a file.
    both_orders: every pair is judged as A, B and as B, A, and one that is judged differently is a tie; otherwise one
    order a pair, decided by the pair itself. Identical texts tie unasked. An answer without a readable verdict is asked
    for once more, more strictly, and then counted as unparsable.
    """

    def __init__(
        self,
        client: Callable[..., Client],
        model: str,
        prompt: str,
        base_url: str | None = None,
        both_orders: bool = True,
    ):
        self.prompt: Prompt = load(prompt)
        self.client, self.both_orders = client(model=model, base_url=base_url), both_orders
        self.name = f"{model}:{self.prompt.name}"

    @property
    def notices(self) -> list[str]:
        return sorted(self.client.notices)

    def check(self) -> None:
        """Raises ValueError when the key is missing."""
        self.client.check()

    def preview(self, pairs: list[tuple[list[dict], list[dict]]]) -> dict:
        """What judging these pairs of samples would take; nothing is sent."""
        questions = [question for first, second in pairs for question in self._questions(first, second).values()]
        return self.client.preview(questions)

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`."""
        questions = self._questions(first, second)
        values = dict(zip(questions, self._values(list(questions.values())), strict=True))
        pairs = range(len(first))
        if self.prompt.kind == "single":
            scores = [[values[side, i] for i in pairs] for side in ("first", "second")]
            return by_score(*scores)
        return [self._verdict(values, i) for i in pairs]

    def scores(self, rows: list[dict]) -> list[float | None]:
        """Scores of samples by a single prompt, None where unparsable."""
        return self._values([self._question(row, response=row["completion"]) for row in rows])

    def _questions(self, first: list[dict], second: list[dict]) -> dict[tuple[str, int], Question]:
        """By (what is shown first, pair): both orders, or both samples of a single prompt."""
        asked = {}
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            if self.prompt.kind == "single":
                asked["first", i] = self._question(a, response=a["completion"])
                asked["second", i] = self._question(b, response=b["completion"])
            elif a["completion"].strip() != b["completion"].strip():
                for order in self._orders(a, b):
                    shown = (a, b) if order == "first" else (b, a)
                    texts = {name: row["completion"] for name, row in zip(("first", "second"), shown, strict=True)}
                    asked[order, i] = self._question(a, **texts)
        return asked

    def _orders(self, a: dict, b: dict) -> tuple[str, ...]:
        if self.both_orders:
            return ("first", "second")
        drawn = hashlib.sha256("\0".join([as_text(a["prompt"]), a["completion"], b["completion"]]).encode()).digest()
        return ("first",) if drawn[0] % 2 else ("second",)

    def _question(self, row: dict, **values: str) -> Question:
        reference = row.get("reference") or ""
        if reference:
            reference = f"\n[Reference answer]\n{reference}\n"
        text = self.prompt.text(prompt=as_text(row["prompt"]), reference=reference, **values)
        top = TOP_LOGPROBS if self.prompt.uses_logprobs else 0
        return Question(({"role": "user", "content": text},), self.prompt.max_tokens, top_logprobs=top)

    def _values(self, questions: list[Question]) -> list[float | None]:
        """What the answers state, the unreadable ones asked once more."""
        values = [self._read(answer) for answer in self.client.ask(questions, self.name)]
        unread = [i for i, value in enumerate(values) if value is None]
        if unread:
            answers = self.client.ask([self._stricter(questions[i]) for i in unread], f"{self.name}, again")
            for i, answer in zip(unread, answers, strict=True):
                values[i] = self._read(answer)
        return values

    def _stricter(self, question: Question) -> Question:
        suffix = AGAIN_PATTERN if self.prompt.pattern else AGAIN.format(allowed=", ".join(self.prompt.allowed))
        text = question.messages[0]["content"] + suffix
        return Question(({"role": "user", "content": text},), question.max_tokens, top_logprobs=question.top_logprobs)

    def _read(self, answer: Answer) -> float | None:
        if self.prompt.uses_logprobs and answer.logprobs:
            return self.prompt.expected(answer.logprobs[0])
        return self.prompt.parsed(answer.text)

    def _verdict(self, values: dict[tuple[str, int], float | None], i: int) -> Verdict:
        """One pair's verdict from the probabilities that what stood first is better."""
        stood = {order: values[order, i] for order in ("first", "second") if (order, i) in values}
        if not stood:
            return Verdict(0.5, 0.5)  # identical
        if "second" in stood and stood["second"] is not None:
            stood["second"] = 1 - stood["second"]
        return combine(stood.get("first"), stood.get("second"), asked=len(stood))


def combine(shown_first: float | None, shown_second: float | None, asked: int) -> Verdict:
    """A verdict from the probabilities that a sample is better, seen when it stood first and second.

    asked: in how many orders the pair was judged; a pair with an unreadable answer has no outcome.
    """
    preferences = [p for p in (shown_first, shown_second) if p is not None]
    outcomes = [None if p is None else (p > 0.5) + 0.5 * (p == 0.5) for p in (shown_first, shown_second)]
    if len(preferences) < asked:
        return Verdict(None, None, *outcomes)
    decided = {outcome for outcome in outcomes if outcome is not None}
    return Verdict(decided.pop() if len(decided) == 1 else 0.5, sum(preferences) / len(preferences), *outcomes)
