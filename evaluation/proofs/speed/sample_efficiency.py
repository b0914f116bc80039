"""Sampled tokens that a policy needs to reach another's final training reward, over seeds.

`python -m evaluation.proofs.speed.sample_efficiency outputs/demo-seed* --policy grpo_offpolicy --baseline grpo` reads
the `metrics.jsonl` of both in every folder. A curve is the mean training reward of the sampled batches, averaged over
the last fifth of the baseline's tokens; every seed has its own target, the baseline's last value. The mean over seeds
of the distance to the target says when it is reached, for the baseline as well; the interval is a bootstrap over
seeds.
"""

import argparse
from pathlib import Path

import numpy as np

from rlhf_trl_ext.callbacks.records import read_metrics

POINTS, WINDOW, RESAMPLES = 400, 0.2, 5000
Curve = tuple[np.ndarray, np.ndarray]


def curve(folder: Path) -> Curve:
    """Sampled tokens so far and mean reward of the batches since the last entry."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "reward" in row]
    if not rows:
        raise SystemExit(f"{folder}/metrics.jsonl has no rewards: only online algorithms have a curve.")
    return np.array([row["sampled_tokens"] for row in rows], float), np.array([row["reward"] for row in rows])


def smoothed(found: Curve, grid: np.ndarray, width: float) -> np.ndarray:
    """Mean reward over the last `width` tokens at each point of the grid; NaN before there are as many, and after."""
    tokens, rewards = found
    sums = np.concatenate([[0.0], np.cumsum(rewards * np.diff(tokens, prepend=0.0))])
    known = np.concatenate([[0.0], tokens])

    def total(places):
        return np.interp(places, known, sums)

    values = (total(grid) - total(grid - width)) / width
    return np.where((grid < width) | (grid > tokens[-1] * (1 + 1e-9)), np.nan, values)


def distances(baselines: list[Curve], policies: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of the baseline's tokens `(N,)`; distance to its final reward of policies and of baselines, `(S, N)`."""
    shares, ours, theirs = np.linspace(0, 1, POINTS + 1)[1:], [], []
    for baseline, policy in zip(baselines, policies, strict=True):
        budget = baseline[0][-1]
        reference = smoothed(baseline, shares * budget, WINDOW * budget)
        ours.append(smoothed(policy, shares * budget, WINDOW * budget) - reference[-1])
        theirs.append(reference - reference[-1])
    return shares, np.array(ours), np.array(theirs)


def ratio(shares: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Tokens to the target, relative to the baseline's; infinite if it is not reached."""

    def first(values):
        reached = np.flatnonzero(values.mean(axis=0) >= -1e-12)
        return shares[reached[0]] if len(reached) else np.inf

    return first(ours) / first(theirs)


def summary(baselines: list[Curve], policies: list[Curve], seed: int = 0) -> list[float]:
    """The ratio and its 95 % interval, `[ratio, low, high]`."""
    shares, ours, theirs = distances(baselines, policies)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(ours), size=(RESAMPLES, len(ours)))
    resampled = [ratio(shares, ours[rows], theirs[rows]) for rows in drawn]
    low, high = np.quantile(resampled, [0.025, 0.975], method="nearest")
    return [ratio(shares, ours, theirs), float(low), float(high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of pipelines, one a seed")
    parser.add_argument("--policy", default="grpo_offpolicy")
    parser.add_argument("--baseline", default="grpo")
    options = parser.parse_args()
    baselines, policies = ([curve(f / n) for f in options.folders] for n in (options.baseline, options.policy))
    value, low, high = summary(baselines, policies)
    print(
        f"{options.policy} needs {value:.2f} ({low:.2f} - {high:.2f}) of the sampled tokens that {options.baseline} "
        f"needs to reach the final reward of {options.baseline}; {len(options.folders)} seeds"
    )


if __name__ == "__main__":
    main()
