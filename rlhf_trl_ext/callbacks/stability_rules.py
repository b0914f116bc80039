"""Rules that tell a failing run from a healthy one by its logged metrics, one value a log. Knows no trainer.

Every rule compares with the run's own recent past by medians and median absolute deviations, which a few outliers do
not move, and stays silent until it has seen `warmup` values. It speaks when it has been broken `patience` times in a
row, once, and again only after it held. Steps that learn from one sampled batch count as one: its outlier is in all.
"""

import math
from collections import deque
from itertools import combinations, pairwise
from statistics import fmean, median

NORMAL = 1.4826  # median absolute deviation -> standard deviation of a normal distribution
TAIL, TAIL_SCORE = 0.9, 1.6449  # nine in ten absolute deviations of a normal distribution are below 1.6449
SIDES = ("above", "below", "both")


class Rule:
    """metric: of `signals`, or any logged name. warmup: values to be seen first. patience: times in a row."""

    misses = False  # whether a log without the metric matters

    def __init__(self, metric: str, warmup: int = 10, patience: int = 1):
        if warmup < 0 or patience < 1:
            raise ValueError(f"warmup={warmup}, patience={patience}: at least 0 and 1 are needed.")
        self.metric, self.warmup, self.patience = metric, warmup, patience
        self.seen, self.broken = 0, 0

    def update(self, value: float | None, fresh: bool = True) -> str | None:
        """What is wrong with this value, in words; None while nothing is, or nothing new, or it was not logged.

        fresh: whether its step is the first to learn from its batch.
        """
        if value is None and not self.misses:
            return None
        self.seen += value is not None
        message = self.judge(value) if self.seen > self.warmup else None
        if value is not None and (message is None or self.broken > self.patience):
            self.learn(value)  # what is wrong is not taken for the past to compare with, unless it lasts
        counts = message is not None and (fresh or self.broken == 0)
        self.broken = 0 if message is None else self.broken + counts
        return message if counts and self.broken == self.patience else None

    def judge(self, value: float | None) -> str | None:
        raise NotImplementedError

    def learn(self, value: float) -> None:
        """Take a value into the past."""


class Spike(Rule):
    """A jump: the value leaves the median of the last `recent` ones by more than `scores` deviations.

    A deviation is `1.4826 MAD` of the same difference over the last `window` values, or what their 90th percentile
    makes of it, at least `floor` in the metric's unit and `share` of the median. side: above, below, both.
    """

    def __init__(
        self,
        metric: str,
        scores: float = 6.0,
        floor: float = 0.0,
        share: float = 0.05,
        side: str = "above",
        recent: int = 5,
        window: int = 30,
        **others,
    ):
        super().__init__(metric, **others)
        if side not in SIDES or scores <= 0:
            raise ValueError(f"side={side}, scores={scores}: {', '.join(SIDES)} and scores above 0 are allowed.")
        self.scores, self.floor, self.share, self.side = scores, floor, share, side
        self.values, self.differences = deque(maxlen=recent), deque(maxlen=window)

    def judge(self, value):
        if not self.differences:
            return None
        usual = median(self.values)
        sizes = sorted(map(abs, self.differences))
        tail = sizes[int(TAIL * (len(sizes) - 1))] / TAIL_SCORE  # noise with outliers is wider than its middle
        deviation = max(NORMAL * median(sizes), tail, self.floor, self.share * abs(usual), 1e-12)
        score = (value - usual) / deviation
        beyond = {"above": score, "below": -score, "both": abs(score)}[self.side]
        return f"{value:.3g} after {usual:.3g}: {beyond:.1f} deviations" if beyond > self.scores else None

    def learn(self, value):
        if self.values:
            self.differences.append(value - median(self.values))
        self.values.append(value)


class Drift(Rule):
    """A slow departure: a cumulated sum (CUSUM, Page 1954) of standardised deviations passes `limit`.

    Deviations are from the median of the `window` values that are older than `lag`, in units of their noise (from
    the differences of neighbours; at least `floor`, `share`). `slack` of them a value are forgiven, so that ordinary
    learning does not add up.
    """

    def __init__(
        self,
        metric: str,
        limit: float = 12.0,
        slack: float = 2.0,
        floor: float = 0.0,
        share: float = 0.05,
        side: str = "above",
        lag: int = 3,
        window: int = 12,
        **others,
    ):
        super().__init__(metric, **others)
        if side not in SIDES[:2]:
            raise ValueError(f"side={side}: {' or '.join(SIDES[:2])} is allowed.")
        self.limit, self.slack, self.floor, self.share = limit, slack, floor, share
        self.sign = 1 if side == "above" else -1
        self.lag, self.values, self.sum = lag, deque(maxlen=window + lag), 0.0

    def judge(self, value):
        past = list(self.values)[: -self.lag]
        if len(past) < 3:
            return None
        usual = median(past)
        # Of differences of neighbours, which a slope does not widen as it does the deviations themselves.
        spread = NORMAL * median(abs(x - y) for x, y in pairwise(past)) / math.sqrt(2)
        deviation = max(spread, self.floor, self.share * abs(usual), 1e-12)
        # One value alone, however far, is a spike and no drift.
        step = min(self.sign * (value - usual) / deviation - self.slack, self.limit / 2)
        self.sum = max(0.0, self.sum + step)
        return f"{value:.3g} against {usual:.3g} before" if self.sum > self.limit else None

    def learn(self, value):
        self.values.append(value)


class Collapse(Rule):
    """The value falls below `share` of the median of the last `window` values; for quantities that are 0 or more."""

    def __init__(self, metric: str, share: float = 0.3, window: int = 15, **others):
        super().__init__(metric, **others)
        self.share, self.values = share, deque(maxlen=window)

    def judge(self, value):
        if not self.values:
            return None
        usual = median(self.values)
        return f"{value:.3g} after {usual:.3g}" if value < self.share * usual else None

    def learn(self, value):
        self.values.append(value)


class Saturation(Rule):
    """The value is above `above`, or below `below`, whatever it was before."""

    def __init__(self, metric: str, above: float = math.inf, below: float = -math.inf, **others):
        super().__init__(metric, **others)
        self.above, self.below = above, below

    def judge(self, value):
        if self.below <= value <= self.above:
            return None
        return f"{value:.3g}, {'above ' if value > self.above else 'below '}{min(self.above, max(value, self.below)):g}"


class Silence(Rule):
    """A metric that was logged is not any more, for more than twice its longest gap so far, or is not a number.

    stuck: it also speaks when a metric that used to change stands still.
    """

    misses = True

    def __init__(self, metric: str, stuck: bool = False, **others):
        super().__init__(metric, **others)
        self.stuck, self.last, self.changes, self.gap, self.longest = stuck, None, 0, 0, 0

    def update(self, value, fresh=True):
        self.gap = self.gap + 1 if value is None else 0
        message = super().update(value, fresh)
        if self.seen <= self.warmup:
            self.longest = max(self.longest, self.gap if self.seen else 0)
        return message

    def judge(self, value):
        if value is None:
            return "not logged any more" if self.gap > 2 * self.longest + 1 else None
        if not math.isfinite(value):
            return str(value)
        return f"{value:.3g} again" if self.stuck and self.changes > self.warmup // 2 and value == self.last else None

    def learn(self, value):
        self.changes += self.last is not None and value != self.last
        self.last = value


class Divergence(Rule):
    """Proxy and gold part: the proxy is higher than gold explains, by `scores` standard errors.

    The proxy is regressed on gold over `window` pairs of the past (slope: Theil and Sen's median), and the mean
    residual of the last `span` pairs is compared with what it may be by chance,
    `s sqrt(1 / span + 1 / window + (x - x0)^2 / Sxx)`. Samples that are good by chance raise both and are no
    divergence. metric: the proxy. Gold is the reward that only watches (`held_out`); without one the rule is silent.
    """

    def __init__(self, metric: str, window: int = 12, span: int = 4, scores: float = 5.0, **others):
        super().__init__(metric, **others)
        if window < 4 or span < 1:
            raise ValueError(f"window={window}, span={span}: at least 4 and 1 are needed.")
        self.window, self.span, self.scores, self.pairs = window, span, scores, deque(maxlen=window + span)

    def pair(self, proxy: float | None, gold: float | None) -> None:
        """The proxy and gold of one log, before `update` is called for it."""
        if proxy is not None and gold is not None:
            self.pairs.append((gold, proxy))

    def judge(self, value):
        if len(self.pairs) < self.pairs.maxlen:
            return None
        past, recent = list(self.pairs)[: self.window], list(self.pairs)[self.window :]
        mean = fmean(gold for gold, _ in past)
        spread = sum((gold - mean) ** 2 for gold, _ in past)
        if spread == 0:
            return None
        slope = median((y - v) / (x - u) for (u, v), (x, y) in combinations(past, 2) if x != u)
        level = median(proxy - slope * gold for gold, proxy in past)
        excess = fmean(proxy - level - slope * gold for gold, proxy in recent)
        deviation = math.sqrt(fmean((proxy - level - slope * gold) ** 2 for gold, proxy in past)) or 1e-12
        distance = fmean(gold for gold, _ in recent) - mean
        score = excess / (deviation * math.sqrt(1 / self.span + 1 / self.window + distance**2 / spread))
        return f"{excess:.3g} higher than gold explains: {score:.1f} errors" if score > self.scores else None


KINDS = {rule.__name__.lower(): rule for rule in (Spike, Drift, Collapse, Saturation, Silence, Divergence)}
