"""Direct RLAIF: a labeller's own opinion of a completion as its reward, without a reward model (arXiv:2309.00267).

Both are async reward functions, which TRL runs beside each other. A completion without a readable answer gets None:
TRL leaves the row out of the loss, and `ai/failed` counts it. Answers are kept in the labeller's record.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from rlhf_trl_ext.judging.labellers import Labeller
from rlhf_trl_ext.judging.labelling import Labelling, Pair
from rlhf_trl_ext.judging.prompt import as_text, load
from rlhf_trl_ext.judging.respondents import Inquiry, Respondent
from rlhf_trl_ext.rewards.gold import content_of


class AIScore:
    """The expected score of a completion alone, brought to [-1, 1]: `2 (sum_i i p_i - low) / (high - low) - 1`.

    prompt: a prompt with a scale, a name in `judging/prompts` or a file. Raises ValueError for one that compares.
    """

    __name__ = "ai_score"

    def __init__(self, respondent: Respondent, prompt: str = "quality"):
        self.respondent, self.prompt = respondent, load(prompt)
        if self.prompt.kind != "single":
            raise ValueError(f"prompt={prompt} compares replies: give one with a scale, such as quality.")
        respondent.check(self.prompt)

    async def __call__(
        self, prompts: list, completions: list, log_metric: Callable | None = None, **kwargs: Any
    ) -> list[float | None]:
        """Rewards in [-1, 1], None where there was no readable answer. Raises ValueError where all lack one."""
        asked = [
            Inquiry(self.prompt, (("prompt", as_text(prompt)), ("response", content_of(completion))))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        # its own thread: the respondent waits for the network or computes, and other reward functions go on
        await asyncio.to_thread(self.respondent.ask, lambda: asked, len(asked), True)
        low, high = self.prompt.scale
        scores = [self.respondent.reading(inquiry).value for inquiry in asked]
        return told([None if s is None else 2 * (s - low) / (high - low) - 1 for s in scores], log_metric, self)


class AIWinRate:
    """The share of its group that a completion beats, `r_i = mean_{j != i} P(i better than j)`, in [0, 1].

    The completions of a prompt stand together, as TRL gives them; each process compares those that it holds. G of them
    take G (G - 1) / 2 comparisons, twice that in both orders, and their rewards sum to G / 2.
    labelling: how opinions become probabilities; ties count as what they are.
    """

    __name__ = "ai_win_rate"

    def __init__(self, labeller: Labeller, labelling: Labelling | None = None):
        self.labeller, self.labelling = labeller, labelling or Labelling()
        labeller.check()

    async def __call__(
        self, prompts: list, completions: list, log_metric: Callable | None = None, **kwargs: Any
    ) -> list[float | None]:
        """Rewards in [0, 1], None where no comparison could be read. Raises ValueError for a group of one."""
        places = self._groups(prompts)
        matches = [(i, j) for group in places for i, j in itertools.combinations(group, 2)]
        texts = [content_of(completion) for completion in completions]
        pairs = [Pair(prompts[i], texts[i], texts[j]) for i, j in matches]
        labels = await asyncio.to_thread(self._labels, pairs)
        won: dict[int, list[float]] = {i: [] for i in range(len(prompts))}
        for (i, j), pair, label in zip(matches, pairs, labels, strict=True):
            if label.preference is not None:
                first = label.preference if label.pair == pair else 1 - label.preference
                won[i].append(first)
                won[j].append(1 - first)
        return told([sum(w) / len(w) if w else None for w in won.values()], log_metric, self)

    def _labels(self, pairs: list[Pair]) -> list:
        return list(self.labelling.labels(lambda: [p.ordered() for p in pairs], self.labeller, len(pairs), True))

    def _groups(self, prompts: list) -> list[list[int]]:
        """Row numbers of completions of the same prompt that stand together."""
        runs = itertools.groupby(range(len(prompts)), key=lambda row: as_text(prompts[row]))
        groups = [list(rows) for _, rows in runs]
        if min(map(len, groups)) < 2:
            raise ValueError("a prompt has one completion in this process: num_generations is 2 or more in each.")
        return groups


def told(rewards: list[float | None], log_metric: Callable | None, function) -> list[float | None]:
    """The rewards; the share without one is logged as `ai/failed`. Raises ValueError where there is none at all."""
    failed = sum(reward is None for reward in rewards)
    if log_metric is not None:
        log_metric("ai/failed", failed / len(rewards))
    if failed == len(rewards):
        raise ValueError(
            f"{function.__name__}: none of {failed} completions got a readable answer; look at the labeller's record, "
            "then resume."
        )
    return rewards
