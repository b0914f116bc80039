"""How often the intervals that the project prints cover the truth: `python -m evaluation.proofs.coverage`.

A table of the share of simulated experiments whose 95 % interval holds the true value, at several numbers of prompts
and of seeds, with ties and with skew; "-" where the project prints no interval. Cells outside 92 to 98 % are marked.
`printed`: the share of experiments that give an interval at all.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from evaluation.comparison.differences import estimate
from evaluation.comparison.efficiency import interval
from evaluation.comparison.landscapes.summary import difference, ratio
from evaluation.quality.metrics import calibration_error
from evaluation.verdicts.correction import prediction_powered, rogan_gladen
from evaluation.verdicts.length_control import LANGUAGE_MODELS, LengthPrior, joint
from evaluation.verdicts.ranking import ranking
from rlhf_trl_ext.judging.bias import position_bias
from rlhf_trl_ext.statistics import mean_interval, wilson_interval

PROMPTS, LABELS, SEEDS = (20, 100, 500), (50, 100, 300), (3, 5, 10)
Draw = tuple[list[float] | None, float]  # interval and true value


def outcomes(generator: np.random.Generator, wins: float, ties: float, size) -> np.ndarray:
    """1, 0.5 and 0 with the given probabilities."""
    return generator.choice([1, 0.5, 0], p=[wins, ties, max(0.0, 1 - wins - ties)], size=size)


def win_rate(wins: float, ties: float) -> Callable:
    return lambda g, n: (mean_interval(outcomes(g, wins, ties, n), (0, 1)), wins + ties / 2)


def four_samples_a_prompt(g: np.random.Generator, n: int) -> Draw:
    """Prompts of different difficulty, each with four pairs."""
    won = g.random((n // 4, 4)) < g.beta(2, 1, size=(n // 4, 1))
    return mean_interval(won.ravel().astype(float), (0, 1), np.repeat(np.arange(n // 4), 4)), 2 / 3


def first_choice(g: np.random.Generator, n: int) -> Draw:
    """A judge who takes the first in 70 % of the pairs in both orders, and else the better one."""
    biased = g.random(n) < 0.7
    better = (g.random(n) < 0.6).astype(float)
    won = np.concatenate([np.where(biased, 1.0, better), np.where(biased, 0.0, better)])
    bias = position_bias(won, np.arange(2 * n) < n, np.tile(np.arange(n), 2))
    return bias["first_choice_ci"], 0.7 + 0.3 * 0.5


def agreement(g: np.random.Generator, n: int) -> Draw:
    return wilson_interval((g.random(n) < 0.8).sum(), n), 0.8


def skewed(kind: str) -> Callable:
    draws = {
        "normal": (lambda g, n: g.normal(size=n), 0.0),
        "exponential": (lambda g, n: g.exponential(size=n), 1.0),
        "lognormal": (lambda g, n: g.lognormal(size=n), float(np.exp(0.5))),
        "KL": (lambda g, n: g.lognormal(0, 0.8, size=n) + g.normal(size=n), float(np.exp(0.32))),
    }
    draw, mean = draws[kind]
    return lambda g, n: (mean_interval(draw(g, n), resamples=1000), mean)


def accuracy_difference(g: np.random.Generator, n: int) -> Draw:
    """Of two models on the same items: 4 % won and 12 % lost."""
    return mean_interval(g.choice([1.0, 0.0, -1.0], p=[0.04, 0.84, 0.12], size=n), (-1, 1)), -0.08


def calibration(g: np.random.Generator, n: int) -> Draw:
    """The range that a calibrated reward's ECE is printed beside, against the ECE of one."""
    p = 1 / (1 + np.exp(-g.normal(0, 1.5, size=n)))
    error = calibration_error(p, g.random((401, n)) < p, 10)
    return np.quantile(error[1:], [0.025, 0.975]).tolist(), float(error[0])


def bradley_terry(g: np.random.Generator, n: int) -> Draw:
    """The strength of the strongest of three; logits 0.8, 0 and -0.8."""
    truth = {"a": 0.8, "b": 0.0, "c": -0.8}
    pairs = (("a", "b"), ("a", "c"), ("b", "c"))
    games = {(i, j): (g.random(n) < 1 / (1 + np.exp(truth[j] - truth[i]))).astype(float) for i, j in pairs}
    ratings = {row["policy"]: row for row in ranking(list(truth), games, resamples=200)}
    return ratings["a"]["interval"], 0.8


def length_controlled(apart: float, policies: int = 1, prior: LengthPrior | None = None) -> Callable:
    """The first of so many policies; `apart`: how many standard deviations longer its answers are than the baseline's.

    prior: of the judge, whose weights are drawn from it; None: a judge that likes shorter answers.
    """

    def draw(g: np.random.Generator, n: int) -> Draw:
        lengths = -(apart + g.normal(size=(policies, n))) * 100
        weights = np.full(policies, 0.8)
        if prior:
            weights = prior.mean + prior.error * g.standard_t(3) + prior.spread * g.normal(size=policies)
        hard = (prior.difficulty if prior else float(policies > 1)) * g.normal(size=n)
        margin = 0.3 + weights[:, None] * np.tanh(lengths / lengths.std(axis=1, ddof=1, keepdims=True)) + hard
        won = (g.random((policies, n)) < 1 / (1 + np.exp(-margin))).astype(float)
        estimates = joint({str(m): (np.arange(n), lengths[m], won[m]) for m in range(policies)}, prior)
        return estimates["0"]["length_controlled_ci"], float((1 / (1 + np.exp(-0.3 - hard))).mean())

    return draw


def corrected(kind: str, rate: float, sensitivity: float, specificity: float) -> Callable:
    """A judge of known errors, corrected by the human labels of a fifth of its pairs."""

    def draw(g: np.random.Generator, labels: int) -> Draw:
        human = (g.random(5 * labels) < rate).astype(float)
        judge = np.where(human == 1, g.random(len(human)) < sensitivity, g.random(len(human)) >= specificity)
        human[labels:] = np.nan
        estimate = {"Rogan-Gladen": rogan_gladen, "prediction-powered": prediction_powered}[kind]
        interval = estimate(judge.astype(float), human, np.arange(len(human)))
        return interval and interval[1:], rate

    return draw


def over_seeds(between: float, prompts: int, shared_prompts: bool, wins: bool = False) -> Callable:
    """Means over seeds and prompts; `same`: all seeds have the same prompts."""

    def draw(g: np.random.Generator, seeds: int) -> Draw:
        hard = g.normal(size=(1 if shared_prompts else seeds, prompts))
        values = between * g.normal(size=(seeds, 1)) + hard + g.normal(size=(seeds, prompts))
        values = (values > 0).astype(float) if wins else values
        return estimate(list(values), crossed=shared_prompts)["interval"], 0.5 if wins else 0.0

    return draw


def restricted(g: np.random.Generator, seeds: int) -> Draw:
    """Tokens to a target, lognormal with median 1; a tenth of the runs does not reach it before the horizon."""
    horizon, spread = float(np.exp(1.2816 * 0.5)), 0.5
    tokens = g.lognormal(0, spread, size=seeds)
    inside = np.exp(spread**2 / 2) * norm.cdf(np.log(horizon) / spread - spread)  # E[T; T < horizon]
    return interval(np.minimum(tokens, horizon), tokens < horizon, horizon), float(inside + 0.1 * horizon)


def token_ratio(g: np.random.Generator, seeds: int) -> Draw:
    ours, theirs = 0.5 * g.lognormal(0, 0.3, size=seeds), g.lognormal(0, 0.3, size=seeds)
    return ratio(ours, theirs)[1:], 0.5


def welch(g: np.random.Generator, seeds: int) -> Draw:
    return difference(g.normal(1, 2, size=seeds), g.normal(0, 1, size=seeds))[1:], 1.0


BY_PROMPTS = {
    "win rate .5": win_rate(0.5, 0.0),
    "win rate .9": win_rate(0.9, 0.0),
    "win rate .95": win_rate(0.95, 0.0),
    "win rate .65, 30 % ties": win_rate(0.5, 0.3),
    "win rate .95, 10 % ties": win_rate(0.9, 0.1),
    "win rate .55, 85 % ties": win_rate(0.125, 0.85),
    "win rate, 4 samples a prompt": four_samples_a_prompt,
    "first choice, both orders": first_choice,
    "agreement of judges": agreement,
    "accuracy difference": accuracy_difference,
    "mean, normal": skewed("normal"),
    "mean, exponential": skewed("exponential"),
    "mean, lognormal": skewed("lognormal"),
    "mean, KL": skewed("KL"),
    "ECE of a calibrated reward": calibration,
    "Bradley-Terry": bradley_terry,
    "length controlled, equal lengths": length_controlled(0.0),
    "length controlled, 1 deviation longer": length_controlled(1.0),
    "length controlled, 3 deviations longer": length_controlled(3.0),
    "length controlled, 1 deviation longer, five policies": length_controlled(1.0, 5),
    "length controlled, 1 deviation longer, language model": length_controlled(1.0, 1, LANGUAGE_MODELS),
    "length controlled, 1 deviation longer, language model, five policies": length_controlled(1.0, 5, LANGUAGE_MODELS),
}
BY_LABELS = {
    f"{kind}, win rate {errors[0]}, sensitivity {errors[1]}, specificity {errors[2]}": corrected(kind, *errors)
    for kind in ("Rogan-Gladen", "prediction-powered")
    for errors in ((0.5, 0.8, 0.8), (0.7, 0.9, 0.7), (0.9, 0.85, 0.75), (0.5, 0.98, 0.98))
}
BY_SEEDS = {
    "mean, no spread between seeds": over_seeds(0.0, 100, shared_prompts=False),
    "mean, spread between seeds": over_seeds(0.3, 100, shared_prompts=False),
    "win rate, spread between seeds": over_seeds(0.3, 100, shared_prompts=False, wins=True),
    "mean, same prompts in all seeds": over_seeds(0.1, 100, shared_prompts=True),
    "win rate, same prompts in all seeds": over_seeds(0.1, 100, shared_prompts=True, wins=True),
    "restricted mean of tokens": restricted,
    "ratio of tokens": token_ratio,
    "difference of final rewards": welch,
}


TABLES = ((BY_PROMPTS, PROMPTS, "prompts"), (BY_LABELS, LABELS, "labels"), (BY_SEEDS, SEEDS, "seeds"))


def coverage(draw: Callable, size: int, experiments: int, seed: int = 0) -> tuple[float | None, float]:
    """Share of the intervals that hold the truth, None where there are none; and the share that are printed."""
    generator = np.random.default_rng(seed)
    intervals = [draw(generator, size) for _ in range(experiments)]
    printed = [(ends, truth) for ends, truth in intervals if ends is not None]
    if not printed:
        return None, 0.0
    return float(np.mean([low <= truth <= high for (low, high), truth in printed])), len(printed) / len(intervals)


def table(rows: dict[str, Callable], sizes: tuple[int, ...], unit: str, experiments: int) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| interval of | {' | '.join(f'{size} {unit}' for size in sizes)} |", "|---" * (1 + len(sizes)) + "|"]
    for name, draw in rows.items():
        cells = []
        for size in sizes:
            share, printed = coverage(draw, size, experiments)
            cell = "-" if share is None else f"{100 * share:.1f}" + ("" if 0.92 <= share <= 0.98 else " (!)")
            cells.append(cell + (f", printed {100 * printed:.0f} %" if 0 < printed < 1 else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000, help="simulated for every cell")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    given = parser.parse_args()
    for rows, sizes, unit in TABLES:
        chosen = {name: draw for name, draw in rows.items() if given.only in name}
        if chosen:
            print(*table(chosen, sizes, unit, given.experiments), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
