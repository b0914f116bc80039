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

from evaluation.comparison.learning_curves import WINDOW, Curve, curve, smoothed

POINTS, RESAMPLES = 400, 5000


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
    if None in baselines + policies:
        raise SystemExit("a metrics.jsonl has no rewards: only online algorithms have a curve.")
    value, low, high = summary(baselines, policies)
    print(
        f"{options.policy} needs {value:.2f} ({low:.2f} - {high:.2f}) of the sampled tokens that {options.baseline} "
        f"needs to reach the final reward of {options.baseline}; {len(options.folders)} seeds"
    )


if __name__ == "__main__":
    main()
