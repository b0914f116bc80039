"""Critique and revision by a constitution: demonstrations for SFT from own replies (SL-CAI, arXiv:2212.08073)."""

import json
from collections.abc import Callable, Iterable, Iterator

from rlhf_trl_ext.judging.client import Client
from rlhf_trl_ext.judging.constitution import Constitution, Principle
from rlhf_trl_ext.judging.prompt import as_text
from rlhf_trl_ext.judging.question import Question
from rlhf_trl_ext.quantities import Amount, Count

SHOW = "<conversation>\n{0}\n</conversation>\n\n<reply>\n{1}\n</reply>"
ONLY = "Write the new reply and nothing else."

Replies = Callable[[], Iterable[tuple[str | list[dict], str]]]


class Reviser:
    """Asks a chat model to criticise a reply by a principle and to rewrite it, `rounds` times, each by another one.

    client: makes the client from `model` and `base_url`. The principles of a reply are drawn by a hash of prompt and
    reply. temperature: of both. Raises ValueError for more rounds than principles.
    """

    def __init__(
        self,
        client: Callable[..., Client],
        model: str,
        constitution: Constitution,
        base_url: str | None = None,
        rounds: Count = 2,
        max_tokens: Count = 512,
        temperature: Amount = 0.0,
    ):
        if not 1 <= rounds <= len(constitution.principles):
            raise ValueError(f"rounds={rounds}: give 1 to {len(constitution.principles)}, a principle each.")
        self.client, self.constitution, self.rounds = client(model=model, base_url=base_url), constitution, rounds
        self.max_tokens, self.temperature = max_tokens, temperature
        self.name = f"{model}:{constitution.name}"

    def check(self) -> None:
        """Raises ValueError when the key is missing."""
        self.client.check()

    def preview(self, replies: Replies) -> dict:
        """What the first critiques would take, times all that follow."""
        first = self.client.preview(question for row in replies() for question in self._next(*row))
        counted = {key: value for key, value in first.items() if key != "usd_spent_before" and value is not None}
        return {**first, **{key: value * 2 * self.rounds for key, value in counted.items()}}

    def revisions(self, replies: Replies, total: int | None = None) -> Iterator[dict]:
        """Rows with prompt, completion (the last revision, None where one came back empty) and evidence.

        replies: called once a pass; (prompt, reply). What is on record is not asked again.
        """
        for number in range(2 * self.rounds):
            name = f"{self.name}, {'critique' if number % 2 == 0 else 'revision'} {number // 2 + 1}"
            self.client.fill((question for row in replies() for question in self._next(*row)), name, total)
        for prompt, reply in replies():
            steps, last = self._steps(prompt, reply)
            done = len(steps) == self.rounds and bool(last.strip())
            evidence = {"first": reply, "steps": steps}
            yield {"prompt": _turns(prompt), "completion": last.strip() if done else None, "evidence": evidence}

    def _next(self, prompt, reply: str) -> list[Question]:
        """The question after those that are answered, none when all are."""
        return [step for step in self._course(prompt, reply) if isinstance(step, Question)]

    def _steps(self, prompt, reply: str) -> tuple[list[dict], str]:
        """Finished rounds, and the reply after them."""
        steps = [step for step in self._course(prompt, reply) if isinstance(step, dict)]
        return steps, steps[-1]["revision"] if steps else reply

    def _course(self, prompt, reply: str) -> Iterator[dict | Question]:
        """Finished rounds, then the open question if there is one."""
        for principle in self.constitution.draw(json.dumps([prompt, reply]), self.rounds):
            question = self._critique(prompt, reply, principle)
            critique = self.client.known(question)
            if critique is None:
                yield question
                return
            question = self._revision(question, critique.text, principle)
            revised = self.client.known(question)
            if revised is None:
                yield question
                return
            reply = revised.text
            yield {"principle": principle.critique, "critique": critique.text, "revision": reply}
            if not reply.strip():
                return

    def _critique(self, prompt, reply: str, principle: Principle) -> Question:
        text = "\n\n".join([SHOW.format(as_text(prompt), reply), principle.critique])
        return Question(({"role": "user", "content": text},), self.max_tokens, self.temperature)

    def _revision(self, critique: Question, critique_text: str, principle: Principle) -> Question:
        critique_turn = {"role": "assistant", "content": critique_text}
        request = {"role": "user", "content": f"{principle.revise} {ONLY}"}
        return Question((*critique.messages, critique_turn, request), self.max_tokens, self.temperature)


def _turns(prompt: str | list[dict]) -> list[dict]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
