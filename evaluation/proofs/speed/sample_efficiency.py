"""Sampled tokens that a policy needs to reach another's final training reward, over seeds.

`python -m evaluation.proofs.speed.sample_efficiency outputs/demo-seed* --policy grpo_offpolicy --baseline grpo` reads
the `metrics.jsonl` of both in every folder. A curve is the mean training reward of the sampled batches, averaged over
the last fifth of the baseline's tokens; every seed has its own target, the baseline's last value. The mean over seeds
of the distance to the target says when it is reached, for the baseline as well; the interval is Student's over the
jackknife's pseudo-values of the ratio's logarithm, one a seed.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import t

from evaluation.comparison.learning_curves import WINDOW, Curve, curve, smoothed

POINTS = 400


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


def summary(baselines: list[Curve], policies: list[Curve]) -> tuple[float, list[float] | None]:
    """The ratio and its 95 % interval; None for a single seed, or where without one of them it is not reached."""
    shares, ours, theirs = distances(baselines, policies)
    whole, seeds = ratio(shares, ours, theirs), len(ours)
    left = [ratio(shares, ours[kept], theirs[kept]) for kept in ~np.eye(seeds, dtype=bool)] if seeds > 1 else []
    if not left or not np.isfinite([whole, *left]).all():
        return whole, None
    values = seeds * np.log(whole) - (seeds - 1) * np.log(left)
    half = t.ppf(0.975, seeds - 1) * values.std(ddof=1) / np.sqrt(seeds)
    return whole, [float(np.exp(values.mean() - half)), float(np.exp(values.mean() + half))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of pipelines, one a seed")
    parser.add_argument("--policy", default="grpo_offpolicy")
    parser.add_argument("--baseline", default="grpo")
    options = parser.parse_args()
    baselines, policies = ([curve(f / n) for f in options.folders] for n in (options.baseline, options.policy))
    if None in baselines + policies:
        raise SystemExit("a metrics.jsonl has no rewards: only online algorithms have a curve.")
    value, interval = summary(baselines, policies)
    text = f"{value:.2f} ({interval[0]:.2f} - {interval[1]:.2f})" if interval else f"{value:.2f} (no interval)"
    print(
        f"{options.policy} needs {text} of the sampled tokens that {options.baseline} "
        f"needs to reach the final reward of {options.baseline}; {len(options.folders)} seeds"
    )


if __name__ == "__main__":
    main()
