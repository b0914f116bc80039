"""Rewards that are checked rather than learnt: whether the answer of a completion is the right one."""

import logging
import threading
from typing import Any

from rlhf_trl_ext.rewards.gold import content_of

SECONDS = 5  # for one expression, where a time limit can be kept


class Accuracy:
    """1 where the last answer in a completion equals the data set's `solution`, else 0, by math-verify.

    TRL's `accuracy_reward` counts an answer only in LaTeX, as `\\boxed{18}`; this one reads plain numbers as well:
    "#### 18", "the answer is 18", "$1,800". Small models rarely write LaTeX. A row whose solution is no number or
    expression gets None, and TRL leaves it out. Raises ImportError where math-verify is not installed.
    """

    __name__ = "accuracy"

    def __init__(self):
        try:
            import math_verify
        except ImportError as error:
            raise ImportError("reward=accuracy needs math-verify: pip install 'rlhf-trl-ext[math]'.") from error
        self.math = math_verify
        for name in ("math_verify.parser", "math_verify.grader"):  # it warns of every call without a time limit
            logging.getLogger(name).setLevel(logging.ERROR)

    def __call__(self, prompts: list, completions: list, solution: list[str], **columns: Any) -> list[float | None]:
        """Rewards of 0 or 1, None for a solution that cannot be read."""
        # math-verify keeps its time limits by a signal, which only the main thread has
        seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
        return [
            self._correct(content_of(completion), right, seconds)
            for completion, right in zip(completions, solution, strict=True)
        ]

    def _correct(self, text: str, solution: str, seconds: int | None) -> float | None:
        expected = self.math.parse(solution, parsing_timeout=seconds)
        if not expected:
            return None
        answer = self.math.parse(text.replace("\\$", ""), parsing_timeout=seconds)  # a dollar sign, no formula
        return float(self.math.verify(expected, answer, timeout_seconds=seconds))
