"""What may be asked: requests and tokens per minute, and a budget that is never exceeded."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from rlhf_trl_ext.quantities import Amount


class BudgetReached(ValueError):
    """The next request could exceed the budget."""


class Pace:
    """Spreads amounts evenly: in any window of t minutes at most `per_minute * t`, plus the amount of one request.

    per_minute: None for no limit.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        self.per_minute, self.clock = per_minute, clock
        self.free_at = 0.0

    def delay(self, amount: float = 1) -> float:
        """Seconds to wait before spending `amount`, which is taken as spent then."""
        if self.per_minute is None:
            return 0.0
        start = max(self.clock(), self.free_at)
        self.free_at = start + 60 * amount / self.per_minute
        return start - self.clock()


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; None where unknown."""

    prompt: Amount | None = None
    completion: Amount | None = None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars, or None where a price is unknown."""
        if self.prompt is None or self.completion is None:
            return None
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class SpendingLimit:
    """Tokens and money, spent and set aside: a request starts only if its largest possible use still fits.

    usd, tokens: the limits, None for none. Raises ValueError for a limit in money without prices.
    """

    def __init__(self, prices: Prices, usd: float | None = None, tokens: int | None = None):
        if usd is not None and prices.cost(1, 1) is None:
            raise ValueError(
                f"budget_usd={usd} cannot be kept without prices: give prices.prompt and prices.completion."
            )
        self.prices, self.usd, self.tokens = prices, usd, tokens
        self.prompt_tokens = self.completion_tokens = 0
        self.reserved: list[tuple[int, int]] = []
        self.changed = asyncio.Condition()

    @property
    def spent(self) -> float | None:
        """US dollars so far, None where a price is unknown."""
        return self.prices.cost(self.prompt_tokens, self.completion_tokens)

    def add(self, usage: dict) -> None:
        """Count `prompt_tokens` and `completion_tokens` as spent."""
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]

    def fits(self, prompt_tokens: int, completion_tokens: int) -> bool:
        """Whether this much more could be used without exceeding a limit, all that is set aside being used too."""
        prompt = self.prompt_tokens + prompt_tokens + sum(p for p, _ in self.reserved)
        completion = self.completion_tokens + completion_tokens + sum(c for _, c in self.reserved)
        if self.tokens is not None and prompt + completion > self.tokens:
            return False
        return self.usd is None or self.prices.cost(prompt, completion) <= self.usd

    async def reserve(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Set aside what a request may use, waiting for running ones. Raises BudgetReached when it can never fit."""
        if self.usd is None and self.tokens is None:
            return
        async with self.changed:
            while not self.fits(prompt_tokens, completion_tokens):
                if not self.reserved:
                    limit = f"budget_usd={self.usd}" if self.usd is not None else f"budget_tokens={self.tokens}"
                    raise BudgetReached(
                        f"{limit} is reached: {self.prompt_tokens + self.completion_tokens:,} tokens spent, and the "
                        "next request could exceed it; raise it and run again to continue."
                    )
                await self.changed.wait()
            self.reserved.append((prompt_tokens, completion_tokens))

    async def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Give back what `reserve` set aside; what was used is counted by `add`."""
        if self.usd is None and self.tokens is None:
            return
        async with self.changed:
            self.reserved.remove((prompt_tokens, completion_tokens))
            self.changed.notify_all()
