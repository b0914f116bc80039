"""What learning curves say: final reward, mean reward over training, and sampled tokens to GRPO's final reward."""

import numpy as np
from scipy.stats import t

REFERENCE = "grpo"
EQUAL_STEPS = ("grpo", "grpo_steps")  # GRPO by the optimizer steps that it takes a batch
SOLVED = 0.8
LAST = 0.1  # share of the iterations whose mean is the final reward
WINDOW = 0.05  # share of the iterations that a smoothed curve averages over


def mean_reward(runs: list[dict]) -> float:
    """Mean reward over training, averaged over runs: what the learning rate is chosen by."""
    return float(np.mean([run["rewards"] for run in runs]))


def final_rewards(curves: np.ndarray) -> np.ndarray:
    """Mean of the last tenth of each curve. curves: `(S, N)` rewards of S seeds at N iterations. Returns `(S,)`."""
    return curves[:, -max(1, round(LAST * curves.shape[1])) :].mean(axis=1)


def tokens_to(target: float, curves: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Sampled tokens until the smoothed curve reaches `target`, `(S,)`, and whether it did; else the whole budget.

    A curve is smoothed by the mean of the last twentieth of its iterations; tokens: per iteration.
    """
    window = max(1, round(WINDOW * curves.shape[1]))
    sums = np.cumsum(np.pad(curves, ((0, 0), (1, 0))), axis=1)
    reached = (sums[:, window:] - sums[:, :-window]) / window >= target  # (S, N - window + 1)
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + window, curves.shape[1])
    return first * tokens, reached.any(axis=1)


def interval(values: np.ndarray) -> list[float]:
    """Mean and Student's 95 % interval over seeds, `[mean, low, high]`; without a width for a single seed."""
    mean, count = float(values.mean()), len(values)
    half = float(t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return [mean, mean - half, mean + half]


def share(values: np.ndarray) -> list[float]:
    """`interval` of true rewards, which are shares of the largest: it ends at 0 and 1."""
    mean, low, high = interval(values)
    return [mean, max(low, 0.0), min(high, 1.0)]


def ratio(values: np.ndarray, reference: np.ndarray) -> list[float]:
    """Ratio of the means of two samples, above 0, with Welch's 95 % interval of its logarithm (delta method)."""
    samples = (values, reference)
    variances = np.array([sample.var(ddof=1) / len(sample) / sample.mean() ** 2 for sample in samples])
    degrees = np.array([len(sample) - 1 for sample in samples])
    value, half = values.mean() / reference.mean(), 0.0
    if variances.sum() > 0:
        half = t.ppf(0.975, variances.sum() ** 2 / (variances**2 / degrees).sum()) * np.sqrt(variances.sum())
    return [float(value), float(value * np.exp(-half)), float(value * np.exp(half))]


def summarise(runs: dict[tuple[str, str], list[dict]], chosen: dict, tried: dict) -> dict:
    """Results by landscape and algorithm, plain data.

    runs: (landscape, algorithm) -> one result of `cell.train` per seed. chosen: -> learning rate, factor of the
    critic's. tried: -> {learning rate, factor: mean reward over training on the selection seeds}.
    """
    results: dict[str, dict] = {}
    for (landscape, algorithm), seeds in runs.items():
        curves, tokens = np.array([run["rewards"] for run in seeds]), seeds[0]["tokens_per_iteration"]
        final = final_rewards(curves)
        scores = tried[landscape, algorithm].items()
        row = {
            "learning_rate": chosen[landscape, algorithm][0],
            "critic_factor": chosen[landscape, algorithm][1],
            "tried": {f"{rate:g}": score for (rate, factor), score in scores if factor == 1},
            "tried_critic": {f"{factor:g}": score for (_, factor), score in scores if factor != 1},
            "steps": seeds[0]["steps_per_iteration"],
            "final_reward": share(final),
            "mean_reward": share(curves.mean(axis=1)),
            "solved": int((final >= SOLVED).sum()),
            "seeds": len(seeds),
            "seconds": float(np.mean([run["seconds"] for run in seeds])),
            "final_rewards": final.tolist(),
            "curve": curve(curves, tokens),
        }
        if (landscape, REFERENCE) in runs:
            reference = np.array([run["rewards"] for run in runs[landscape, REFERENCE]])
            row |= against(reference, curves, tokens, itself=algorithm == REFERENCE)
        for name in EQUAL_STEPS:
            equal = runs.get((landscape, name))
            if name != algorithm and equal and equal[0]["steps_per_iteration"] == row["steps"] and len(seeds) > 1:
                row["equal_steps"] = difference(final, final_rewards(np.array([run["rewards"] for run in equal])))
        results.setdefault(landscape, {})[algorithm] = row
    return results


def against(reference: np.ndarray, curves: np.ndarray, tokens: int, itself: bool) -> dict:
    """Tokens to the reference's final reward, as a ratio, and how much higher final and mean reward are."""
    target = float(final_rewards(reference).mean())
    taken, reached = tokens_to(target, curves, tokens)
    theirs, _ = tokens_to(target, reference, tokens)
    row = {"target": target, "tokens_to_target": interval(taken), "reached": int(reached.sum())}
    if itself:
        return {**row, "tokens_ratio": [1.0, 1.0, 1.0]}
    return {
        **row,
        "tokens_ratio": ratio(taken, theirs),
        "final_difference": difference(final_rewards(curves), final_rewards(reference)),
        "mean_difference": difference(curves.mean(axis=1), reference.mean(axis=1)),
    }


def difference(values: np.ndarray, reference: np.ndarray) -> list[float]:
    """Difference of two means with Welch's 95 % interval."""
    variances = np.array([sample.var(ddof=1) / len(sample) for sample in (values, reference)])
    mean, half = values.mean() - reference.mean(), 0.0
    if variances.sum() > 0:
        degrees = variances.sum() ** 2 / (variances**2 / (np.array([len(values), len(reference)]) - 1)).sum()
        half = t.ppf(0.975, degrees) * np.sqrt(variances.sum())
    return [float(mean), float(mean - half), float(mean + half)]


def curve(curves: np.ndarray, tokens: int) -> dict:
    """Mean and Student's 95 % band over seeds of the smoothed curves, against sampled tokens."""
    window = max(1, round(WINDOW * curves.shape[1]))
    sums = np.cumsum(np.pad(curves, ((0, 0), (1, 0))), axis=1)
    smooth = (sums[:, window:] - sums[:, :-window]) / window
    middle, low, high = zip(*(share(smooth[:, step]) for step in range(smooth.shape[1])), strict=True)
    return {
        "sampled_tokens": [(window + step) * tokens for step in range(smooth.shape[1])],
        "mean": list(middle),
        "low": list(low),
        "high": list(high),
    }
