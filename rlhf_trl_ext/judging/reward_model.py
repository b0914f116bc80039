"""A reward model as judge."""

import hashlib
import json

from rlhf_trl_ext.judging.judge import Judge, Replies, Score, check_temperature
from rlhf_trl_ext.judging.verdicts import Reply
from rlhf_trl_ext.quantities import Count, Positive


class RewardModelJudge(Judge):
    """Any sequence classifier with one label, by folder or hub id.

    `P(first is better) = sigmoid((r_1 - r_2) / temperature)`; temperature: in the reward's unit. Rewards that are no
    finite numbers are unreadable.
    """

    scores_alone = True

    def __init__(self, path: str, temperature: Positive = 1.0, batch_size: Count = 64, dtype: str = "float32"):
        check_temperature(temperature, "the reward's unit")
        self.path, self.temperature, self.batch_size, self.dtype = path, temperature, batch_size, dtype
        self.name = f"reward_model:{path}"
        self.model = None
        self.scores: dict[bytes, float] = {}

    def prepare_scores(self, replies: Replies, total: int | None = None, tolerant: bool = False) -> None:
        """See `Judge.prepare_scores`. Weights load here, and stay."""
        waiting: dict[bytes, Reply] = {}
        for reply in replies():
            if (key := _key(reply)) not in self.scores:
                waiting[key] = reply
            if len(waiting) >= self.batch_size:
                self._score(waiting)
        self._score(waiting)

    def _score(self, waiting: dict[bytes, Reply]) -> None:
        if not waiting:
            return
        if self.model is None:
            from rlhf_trl_ext.rewards.model import RewardModel  # imports torch

            self.model = RewardModel(self.path, self.batch_size, self.dtype)
        prompts = [_messages(reply.prompt) for reply in waiting.values()]
        replies = [[{"role": "assistant", "content": reply.text}] for reply in waiting.values()]
        self.scores.update(zip(waiting, self.model(prompts, replies), strict=True))
        waiting.clear()

    def score(self, reply: Reply) -> Score:
        """See `Judge.score`."""
        return Score(self.scores[_key(reply)])


def _messages(prompt: str | list[dict]) -> list[dict]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _key(reply: Reply) -> bytes:
    return hashlib.sha256(json.dumps([reply.prompt, reply.text]).encode()).digest()
