"""A judge that knows the embedded task's gold reward, and can be made as fallible as one likes."""

import hashlib

from rlhf_trl_ext.judging.judge import Judge
from rlhf_trl_ext.judging.verdicts import Display, Opinion, Reply, Verdict, finite
from rlhf_trl_ext.quantities import Seed
from rlhf_trl_ext.rewards.gold import GoldReward


class GoldJudge(Judge):
    """The gold reward's verdict, spoilt by noise and a liking for what stands first.

    Samples that carry a `gold_reward` are judged by it, unreadable where it is no finite number; of other texts of the
    embedded task it is computed. With probability b (position_bias) the judge names what stands first, otherwise its
    own verdict, which is wrong for a share `noise` of the pairs, the same ones in both orders. logprobs: it knows how
    often it errs, and the answer is `p = (1 - b) c + b`, c being 1 - noise where its verdict is for the first, noise
    where it is against it, 1/2 where gold ties. Without, the answer is a word: 0 or 1, drawn with p for c = 1, 0 or
    1/2. All draws are hashes of seed and pair, so that order and repetition do not matter.
    Raises ValueError for a noise outside [0, 0.5) or a position_bias outside [0, 1].
    """

    def __init__(
        self,
        noise: float = 0.0,
        position_bias: float = 0.0,
        logprobs: bool = True,
        both_orders: bool = True,
        seed: Seed = 0,
    ):
        if not 0 <= noise < 0.5 or not 0 <= position_bias <= 1:
            raise ValueError(f"noise={noise}, position_bias={position_bias}: noise is in [0, 0.5), the bias in [0, 1].")
        self.noise, self.position_bias, self.logprobs, self.seed = noise, position_bias, logprobs, seed
        self.both_orders, self.gold, self._recorded = both_orders, GoldReward(), False
        sure = not noise and not position_bias
        self.name = "gold_reward" if sure else f"gold, noise {noise}, position bias {position_bias}"

    @property
    def sees_order(self) -> bool:
        """See `Judge.sees_order`."""
        return self.position_bias > 0 or not self.logprobs

    def compare(self, first: list[dict], second: list[dict]) -> list[Verdict]:
        """See `Judge.compare`."""
        self._recorded = any(finite(row.get("gold_reward")) is not None for row in (*first, *second))
        return super().compare(first, second)

    def opinion(self, display: Display) -> Opinion:
        """See `Judge.opinion`. Raises ValueError for a prompt that is not of the embedded task."""
        first, second = map(self._gold, display.replies)
        if first is None or second is None:
            return Opinion(None, evidence={"text": ["gold_reward is no finite number"]})
        sure = 0.5
        if first != second:
            right = self._draw("noise", display.identity) >= self.noise
            doubt = self.noise if self.logprobs else 0.0
            sure = 1 - doubt if (first > second) == right else doubt
        p = (1 - self.position_bias) * sure + self.position_bias
        if self.logprobs:
            return Opinion(p)
        return Opinion(float(self._draw("verdict", display.identity, display.first) < p))

    def _gold(self, reply: Reply) -> float | None:
        if self._recorded and "gold_reward" in (reply.sample or {}):
            return finite(reply.sample["gold_reward"])
        return self.gold([reply.prompt], [reply.text])[0]

    def _draw(self, *about: str) -> float:
        """Uniform in [0, 1), a function of seed and arguments."""
        digest = hashlib.sha256("\0".join([str(self.seed), *about]).encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64
