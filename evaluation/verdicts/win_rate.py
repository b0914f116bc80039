"""Win rate of a policy over a baseline on the same prompts, with what is needed to defend it."""

import json

import numpy as np

from rlhf_trl_ext.judging.bias import length_bias, order_flip_rate, position_bias
from rlhf_trl_ext.judging.judge import Judge, Verdict
from rlhf_trl_ext.statistics import bootstrap_interval, prompts_needed, sign_test, wilson_interval


def win_rate(judge: Judge, policy: list[dict], baseline: list[dict]) -> dict:
    """`summary` of a judge's verdicts on samples of `launchers.generate`, same prompts in the same order.

    Raises ValueError when the prompts differ or fewer than 2 pairs are given, before anything is judged.
    """
    check_pairs(policy, baseline)
    return summary(judge.compare(policy, baseline), policy, baseline)


def check_pairs(policy: list[dict], baseline: list[dict]) -> None:
    """Raises ValueError unless both have the same prompts in the same order, and at least 2."""
    if len(policy) != len(baseline) or any(a["prompt"] != b["prompt"] for a, b in zip(policy, baseline, strict=True)):
        raise ValueError(
            f"samples of different prompts cannot be compared ({len(policy)} and {len(baseline)} rows): "
            "generate both with the same dataset, seed and samples.max_prompts."
        )
    if len(policy) < 2:
        raise ValueError(f"{len(policy)} pair(s) to compare: at least 2 are needed for an interval.")


def summary(verdicts: list[Verdict], policy: list[dict], baseline: list[dict]) -> dict:
    """`win_rate` (ties one half), its bootstrap interval over prompts `win_rate_ci`, Wilson, sign test, biases.

    Pairs without a readable verdict are counted in `unparsable` and left out of everything else. `position` and
    `order_flip_rate` are there for judges that see an order, `score_means` and `category_scores` (policy, baseline)
    for those that score, `length` where samples have completions.
    Raises ValueError when fewer than 2 verdicts could be read.
    """
    read = [i for i, verdict in enumerate(verdicts) if verdict.outcome is not None]
    if len(read) < 2:
        raise ValueError(f"only {len(read)} of {len(verdicts)} verdicts could be read: look at the judge's answers.")
    outcomes = np.array([verdicts[i].outcome for i in read])
    told = {
        "win_rate": float(outcomes.mean()),
        "win_rate_ci": bootstrap_interval(outcomes, groups=prompt_ids([policy[i] for i in read])),
        "wilson_ci": wilson_interval(outcomes.sum(), len(outcomes)),
        "wins": int((outcomes == 1).sum()),
        "ties": int((outcomes == 0.5).sum()),
        "losses": int((outcomes == 0).sum()),
        "pairs": len(read),
        "unparsable": len(verdicts) - len(read),
        "sign_test_p": sign_test(outcomes),
        "prompts_needed": prompts_needed(outcomes),
        "preference_mean": float(np.mean([verdicts[i].preference for i in read])),
    }
    told.update(_orders(verdicts))
    if all(verdicts[i].scores for i in read):
        told["score_means"] = np.mean([verdicts[i].scores for i in read], axis=0).tolist()
        told["category_scores"] = _by_category(
            [policy[i].get("category") for i in read], [verdicts[i].scores for i in read]
        )
    if all("completion" in row for row in (*policy, *baseline)):
        told["length"] = length_bias(outcomes, length_differences(policy, baseline)[read])
    return told


def _by_category(categories: list[str | None], scores: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Mean scores (policy, baseline) of every category of a benchmark."""
    found: dict[str, list] = {}
    for category, pair in zip(categories, scores, strict=True):
        if category is not None:
            found.setdefault(category, []).append(pair)
    return {category: np.mean(pairs, axis=0).tolist() for category, pairs in found.items()}


def _orders(verdicts: list[Verdict]) -> dict:
    """Position bias over all judgements that could be read, and how many pairs flip with the order."""
    first = [v.shown_first for v in verdicts if v.shown_first is not None]
    second = [v.shown_second for v in verdicts if v.shown_second is not None]
    if not first and not second:
        return {}
    both = [v for v in verdicts if v.shown_first is not None and v.shown_second is not None]
    won, shown_first = np.array(first + second), np.arange(len(first) + len(second)) < len(first)
    flips = order_flip_rate([v.shown_first for v in both], [v.shown_second for v in both])
    return {"position": position_bias(won, shown_first), "order_flip_rate": flips}


def prompt_ids(rows: list[dict]) -> np.ndarray:
    """A number for every row, `(N,)`, the same for rows of the same prompt."""
    known: dict[str, int] = {}
    texts = (row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"]) for row in rows)
    return np.array([known.setdefault(text, len(known)) for text in texts])


def length_differences(policy: list[dict], baseline: list[dict]) -> np.ndarray:
    """Characters of the policy's completion minus the baseline's, `(N,)`."""
    return np.array([len(a["completion"]) - len(b["completion"]) for a, b in zip(policy, baseline, strict=True)])
