"""Which policy to take and how far that may be believed: what a reader of the first screen needs."""

from dataclasses import dataclass, field

import numpy as np

from evaluation.comparison.run import CONTROLLED
from evaluation.quality.failures.kinds import SEVERE, kind_of, rank
from evaluation.report.comparisons import comparisons
from evaluation.report.runs import Runs


@dataclass
class Recommendation:
    """take: the answer in a sentence; reasons: what it rests on; warnings: severe failures."""

    take: str
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def recommend(runs: Runs, dataset: str) -> Recommendation | None:
    """The policy with the highest win rate, if it beats the baseline; None where no win rates are shown.

    A policy that alone is flagged for a severe failure is not taken while there are others.
    """
    summary, baseline = runs.results["by_dataset"][dataset], runs.results["baseline"]
    control = (runs.results.get("aa_control") or [])[1:]
    rates = {
        row: means["win_rate"]
        for row, means in summary["means"].items()
        if row in runs.rows and row not in control and "win_rate" in means
    }
    if not rates or not runs.shows("win_rate"):
        return None
    shared, own = _flags(runs, dataset, list(rates))
    broken = {name: flags for name in rates if (flags := [f for f in own[name] if kind_of(f).severity == SEVERE])}
    best = max(rates, key=lambda row: (row not in broken, rates[row]["mean"]))
    warnings = [_broken(name, flags, rates) for name, flags in broken.items()]
    reasons = [_rivals(runs, dataset, best, rates), _certainty(runs, dataset, best), _cost(runs, dataset, best)]
    fair = summary.get("fair_judge") or "unknown"
    reasons.append(f"Judged by {runs.results['judge']}. Is this a fair judge? {fair}.")
    reasons.append(_at_equal_lengths(summary, best))
    if shared:
        line = f"Every policy is flagged for {', '.join(shared)}: look at the task or the reward, not at one policy."
        (warnings if any(kind_of(flag).severity == SEVERE for flag in shared) else reasons).append(line)
    noticed = {name: [flag for flag in flags if kind_of(flag).severity != SEVERE] for name, flags in own.items()}
    reasons += [
        f"Read samples of {name}: it is flagged for {', '.join(flags)}." for name, flags in noticed.items() if flags
    ]
    return Recommendation(_take(best, rates[best], baseline), [reason for reason in reasons if reason], warnings)


def _take(best: str, rate: dict, baseline: str) -> str:
    low, high = rate["interval"]
    words = f"{rate['mean']:.0%} of comparisons with {baseline} (95 % interval {low:.0%} to {high:.0%})"
    if low > 0.5:
        return f"Take {best}: it wins {words}."
    if high < 0.5:
        return f"Keep {baseline}: the best of the others, {best}, wins {words}."
    return f"Keep {baseline}: {best}, which wins most, wins {words}, and one half lies inside."


def _broken(name: str, flags: list[str], rates: dict) -> str:
    kinds = dict.fromkeys(kind_of(flag).words for flag in sorted(flags, key=rank))
    return f"{name} {_listed(list(kinds))} ({', '.join(flags)}); it wins {rates[name]['mean']:.0%}."


def _rivals(runs: Runs, dataset: str, best: str, rates: dict) -> str:
    """From whom the best is told apart, and the cheapest of those from whom it is not."""
    known = comparisons(runs, dataset)
    compared = {name: known[best, name] for name in rates if (best, name) in known}
    better = [name for name, own in compared.items() if own["distinguishable"] and _wins(own)]
    beaten = [name for name, own in compared.items() if own["distinguishable"] and not _wins(own)]
    alike = [name for name, own in compared.items() if not own["distinguishable"]]
    who = "Judged against one another, it" if any(own["direct"] for own in compared.values()) else "It"
    parts = [f"{who} is better than {_listed(better)}."] if better else []
    parts += [f"But {_listed(beaten)} win{'s' if len(beaten) == 1 else ''} against it."] if beaten else []
    if alike:
        parts.append(f"It is not distinguishable from {_listed(alike)}.")
        taken = {name: _mean(runs, name, "train_seconds") for name in (best, *alike)}
        cheapest = min(taken, key=taken.get)
        if taken[cheapest] < 0.8 * taken[best]:
            tokens = _mean(runs, cheapest, "sampled_tokens")
            parts.append(f"Of these {cheapest} took least: {taken[cheapest]:,.0f} s, {tokens:,.0f} sampled tokens.")
    return " ".join(parts)


def _wins(own: dict) -> bool:
    return own["mean"] > (0.5 if own["direct"] else 0)


def _certainty(runs: Runs, dataset: str, best: str) -> str:
    own = runs.of(dataset)
    prompts = int(np.mean([len(run.samples[best]) for run in own]))
    if len(own) > 1:
        return f"{len(own)} training seeds, {prompts:,} held-out prompts each; intervals are over both."
    return f"One training seed and {prompts:,} held-out prompts: another seed may rank otherwise."


def _cost(runs: Runs, dataset: str, best: str) -> str:
    seconds, tokens, memory = (
        _mean(runs, best, key, dataset) for key in ("train_seconds", "sampled_tokens", "peak_memory_mb")
    )
    return f"Training {best} took {seconds:,.0f} s, {tokens:,.0f} sampled tokens and {memory:,.0f} MB at its peak."


def _at_equal_lengths(summary: dict, best: str) -> str:
    controlled = summary["means"][best].get(CONTROLLED)
    if controlled is None:
        return f"What {best} would win at equal lengths cannot be told: almost all its answers are longer, or shorter."
    return f"At equal lengths {best} would win {controlled['mean']:.0%}."


def _flags(runs: Runs, dataset: str, names: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Diagnostics that every one of several policies raises, and those of single ones."""
    raised = {
        name: sorted({flag for cell in _cells(runs, name, dataset) for flag in cell["flags"] or []}) for name in names
    }
    shared = [flag for flag in raised[names[0]] if len(names) > 1 and all(flag in own for own in raised.values())]
    return shared, {name: [flag for flag in own if flag not in shared] for name, own in raised.items()}


def _cells(runs: Runs, name: str, dataset: str | None = None) -> list[dict]:
    return [
        cell
        for cell in runs.results["cells"]
        if cell["algorithm"] == name and cell["status"] == "finished" and dataset in (None, cell["dataset"])
    ]


def _mean(runs: Runs, name: str, key: str, dataset: str | None = None) -> float:
    return float(np.mean([cell[key] or 0 for cell in _cells(runs, name, dataset)]))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
