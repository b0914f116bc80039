"""Direct RLAIF: a judge's opinion of a completion as its reward, without a reward model (arXiv:2309.00267)."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from rlhf_trl_ext.judging.judge import Judge, check_judges_text
from rlhf_trl_ext.judging.labelling import Labelling, Pair
from rlhf_trl_ext.judging.prompt import as_text
from rlhf_trl_ext.judging.verdicts import Reply, finite
from rlhf_trl_ext.rewards.gold import content_of


class AIReward:
    """A judge as an async reward function, which TRL runs beside others.

    A judge that scores replies alone gives the score, brought to [-1, 1] where its scale has bounds,
    `2 (s - low) / (high - low) - 1`. Any other gives the share of its group that a completion beats,
    `r_i = mean_{j != i} P(i better than j)`, in [0, 1]: the completions of a prompt stand together, as TRL gives them,
    and each process compares those that it holds; G of them take G (G - 1) / 2 comparisons, twice that in both orders,
    and their rewards sum to G / 2. labelling: how opinions become probabilities; ties count as what they are.
    A completion without a readable answer gets None: TRL leaves the row out of the loss, and `ai/failed` counts it.
    Raises ValueError for a judge of recorded scores, and for one that cannot work.
    """

    def __init__(self, judge: Judge, labelling: Labelling | None = None):
        check_judges_text(judge, "completions in training")
        judge.check()
        self.judge, self.labelling = judge, labelling or Labelling()
        self.__name__ = "ai_score" if judge.scores_alone else "ai_win_rate"

    async def __call__(
        self, prompts: list, completions: list, log_metric: Callable | None = None, **kwargs: Any
    ) -> list[float | None]:
        """Rewards, None where nothing could be read. Raises ValueError where that is so for all; a group of one."""
        texts = [content_of(completion) for completion in completions]
        rewarded = self._scores if self.judge.scores_alone else self._win_rates
        # its own thread: the judge waits for the network or computes, and other reward functions go on
        rewards = await asyncio.to_thread(rewarded, prompts, texts)
        failed = sum(reward is None for reward in rewards)
        if log_metric is not None:
            log_metric("ai/failed", failed / len(rewards))
        if failed == len(rewards):
            raise ValueError(
                f"{self.__name__}: none of {failed} completions could be read ({'; '.join(self.judge.notices)}); "
                "look at the judge's record, then resume."
            )
        return rewards

    def _scores(self, prompts: list, texts: list[str]) -> list[float | None]:
        replies = list(map(Reply, prompts, texts))
        self.judge.prepare_scores(lambda: replies, len(replies), tolerant=True)
        scores = [finite(self.judge.score(reply).value) for reply in replies]
        if self.judge.scale is None:
            return scores
        low, high = self.judge.scale
        return [None if s is None else 2 * (s - low) / (high - low) - 1 for s in scores]

    def _win_rates(self, prompts: list, texts: list[str]) -> list[float | None]:
        matches = [(i, j) for group in self._groups(prompts) for i, j in itertools.combinations(group, 2)]
        pairs = [Pair(prompts[i], texts[i], texts[j]) for i, j in matches]
        labels = self.labelling.labels(lambda: [p.ordered() for p in pairs], self.judge, len(pairs), tolerant=True)
        won: dict[int, list[float]] = {i: [] for i in range(len(prompts))}
        for (i, j), pair, label in zip(matches, pairs, labels, strict=True):
            if label.preference is not None:
                first = label.preference if label.pair == pair else 1 - label.preference
                won[i].append(first)
                won[j].append(1 - first)
        return [sum(w) / len(w) if w else None for w in won.values()]

    def _groups(self, prompts: list) -> list[list[int]]:
        """Row numbers of completions of the same prompt that stand together."""
        runs = itertools.groupby(range(len(prompts)), key=lambda row: as_text(prompts[row]))
        groups = [list(rows) for _, rows in runs]
        if min(map(len, groups)) < 2:
            raise ValueError("a prompt has one completion in this process: num_generations is 2 or more in each.")
        return groups
