"""Four verifiable rewards with a known maximum of 1, each hard in one way.

A prompt names one of a few questions, a completion is a fixed number of actions (token ids `0 .. actions - 1`), and a
random table holds the right action for every question and position. Rewards are read off the token ids.
"""

import numpy as np

from rlhf_trl_ext.quantities import Amount, Count, Seed, Share


class Landscape:
    """A reward function for TRL that also keeps what it paid: `means` is the true mean reward of every batch.

    questions, actions, length: prompts, choices per token, and tokens per completion; a seed draws the table of right
    actions. keys: how many positions, evenly spread, decide the reward. noise: standard deviation of what is added to
    the reward that the trainer sees, in reward units; `means` is without it.
    """

    def __init__(
        self, questions: Count, actions: Count, length: Count, keys: Count, noise: Amount = 0.0, seed: Seed = 0
    ):
        if not 0 < keys <= length:
            raise ValueError(f"keys={keys}: give 1 to length={length}.")
        self.questions, self.actions, self.length, self.noise = questions, actions, length, noise
        self.random = np.random.default_rng(seed)
        self.table = self.random.integers(actions, size=(questions, length))
        self.positions = np.linspace(0, length, keys, endpoint=False).astype(int) + (length // keys - 1)
        self.means: list[float] = []
        self.__name__ = type(self).__name__.lower()

    def __call__(self, prompts: list[str], completion_ids: list[list[int]], **kwargs) -> list[float]:
        tokens = np.array(completion_ids)  # (B, T)
        table = self.table[[int(prompt.split()[0]) for prompt in prompts]]  # (B, T)
        rewards = self.paid(tokens, table, (tokens == table)[:, self.positions])
        self.means.append(float(rewards.mean()))
        return (rewards + self.noise * self.random.standard_normal(len(rewards))).tolist()

    def paid(self, tokens: np.ndarray, table: np.ndarray, right: np.ndarray) -> np.ndarray:
        """True rewards `(B,)`. tokens, table: `(B, T)`; right: `(B, keys)`, whether each key position is right."""
        raise NotImplementedError


class Dense(Landscape):
    """The share of right keys: every token counts a little."""

    def paid(self, tokens, table, right):
        return right.mean(axis=1)


class Sparse(Landscape):
    """1 if all keys are right, else 0; by chance `actions ** -keys`."""

    def paid(self, tokens, table, right):
        return right.all(axis=1).astype(float)


class Prefix(Landscape):
    """The share of keys before the first wrong one."""

    def paid(self, tokens, table, right):
        return right.cumprod(axis=1).mean(axis=1)


class Deceptive(Landscape):
    """Sparse, but one wrong first token, the decoy, pays `decoy` at once and rules the 1 out."""

    def __init__(self, *args, decoy: Share = 0.3, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoy = decoy

    def paid(self, tokens, table, right):
        decoyed = tokens[:, 0] == (table[:, 0] + 1) % self.actions
        return np.where(decoyed, self.decoy, right.all(axis=1))
