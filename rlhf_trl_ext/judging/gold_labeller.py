"""A labeller that knows the embedded task's gold reward, and can be made as fallible as one likes."""

import hashlib

from rlhf_trl_ext.judging.labellers import Display, Labeller, Opinion
from rlhf_trl_ext.rewards.gold import GoldReward


class GoldLabeller(Labeller):
    """The gold reward's verdict, spoilt by noise and a liking for what stands first.

    With probability b (position_bias) it names what stands first, otherwise its own verdict, which is wrong for a share
    `noise` of the pairs, the same ones in both orders. logprobs: it knows how often it errs, and the answer is
    `p = (1 - b) c + b`, c being 1 - noise where its verdict is for the first, noise where it is against it, 1/2 where
    gold ties. Without, the answer is a word: 0 or 1, drawn with p for c = 1, 0 or 1/2.
    All draws are hashes of seed and pair, so that order and repetition do not matter.
    Raises ValueError for a noise outside [0, 0.5) or a position_bias outside [0, 1].
    """

    def __init__(self, noise: float = 0.0, position_bias: float = 0.0, logprobs: bool = True, seed: int = 0):
        if not 0 <= noise < 0.5 or not 0 <= position_bias <= 1:
            raise ValueError(f"noise={noise}, position_bias={position_bias}: noise is in [0, 0.5), the bias in [0, 1].")
        self.noise, self.position_bias, self.logprobs, self.seed = noise, position_bias, logprobs, seed
        self.gold = GoldReward()
        self.sees_order = position_bias > 0 or not logprobs
        self.name = "gold" if not noise and not position_bias else f"gold, noise {noise}, position bias {position_bias}"

    def opinion(self, display: Display) -> Opinion:
        replies = [[{"role": "assistant", "content": reply}] for reply in (display.first, display.second)]
        first, second = self.gold([display.prompt] * 2, replies)
        sure = 0.5
        if first != second:
            right = self._draw("noise", display.identity) >= self.noise
            doubt = self.noise if self.logprobs else 0.0
            sure = 1 - doubt if (first > second) == right else doubt
        p = (1 - self.position_bias) * sure + self.position_bias
        if self.logprobs:
            return Opinion(p)
        return Opinion(float(self._draw("verdict", display.identity, display.first) < p))

    def _draw(self, *about: str) -> float:
        """Uniform in [0, 1), a function of seed and arguments."""
        digest = hashlib.sha256("\0".join([str(self.seed), *about]).encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64
