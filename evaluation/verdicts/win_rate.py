"""Win rate of a policy over a baseline on the same prompts, with what is needed to defend it."""

import numpy as np

from evaluation.verdicts.samples import length_differences, prompt_ids
from evaluation.verdicts.statistics import prompts_needed, sign_test
from rlhf_trl_ext.data.samples import Samples
from rlhf_trl_ext.judging.bias import length_bias, order_flip_rate, position_bias
from rlhf_trl_ext.judging.verdicts import Verdict
from rlhf_trl_ext.statistics import mean_interval, wilson_interval

SIDES = ("shown_first", "shown_second")


def summary(verdicts: list[Verdict], policy: Samples, baseline: Samples) -> dict:
    """`win_rate` (ties one half), its interval over prompts `win_rate_ci`, Wilson, sign test, biases.

    Pairs without a readable verdict are counted in `unparsable` and left out of everything else. `position` and
    `order_flip_rate` are there for judges that see an order, `score_means` and `category_scores` (policy, baseline)
    for those that score, `length` where samples have completions.
    Raises ValueError when fewer than 2 verdicts could be read.
    """
    read = [i for i, verdict in enumerate(verdicts) if verdict.outcome is not None]
    if len(read) < 2:
        raise ValueError(f"only {len(read)} of {len(verdicts)} verdicts could be read: look at the judge's answers.")
    outcomes, prompts = np.array([verdicts[i].outcome for i in read]), prompt_ids([policy[i] for i in read])
    row = {
        "win_rate": float(outcomes.mean()),
        "win_rate_ci": mean_interval(outcomes, (0, 1), prompts),
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
    row.update(_orders(verdicts))
    if all(verdicts[i].scores for i in read):
        row["score_means"] = np.mean([verdicts[i].scores for i in read], axis=0).tolist()
        row["category_scores"] = _by_category(
            [policy[i].get("category") for i in read], [verdicts[i].scores for i in read]
        )
    if all("completion" in sample for sample in (*policy, *baseline)):
        row["length"] = length_bias(outcomes, length_differences(policy, baseline)[read])
    return row


def _by_category(categories: list[str | None], scores: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Mean scores (policy, baseline) of every category of a benchmark."""
    pairs: dict[str, list] = {}
    for category, pair in zip(categories, scores, strict=True):
        if category is not None:
            pairs.setdefault(category, []).append(pair)
    return {category: np.mean(own, axis=0).tolist() for category, own in pairs.items()}


def _orders(verdicts: list[Verdict]) -> dict:
    """Position bias over all judgements that could be read, and how many pairs flip with the order."""
    first, second = ([getattr(v, side) for v in verdicts if getattr(v, side) is not None] for side in SIDES)
    if not first and not second:
        return {}
    both = [v for v in verdicts if v.shown_first is not None and v.shown_second is not None]
    won, shown_first = np.array(first + second), np.arange(len(first) + len(second)) < len(first)
    flips = order_flip_rate([v.shown_first for v in both], [v.shown_second for v in both])
    pairs = np.concatenate([[i for i, v in enumerate(verdicts) if getattr(v, side) is not None] for side in SIDES])
    return {"position": position_bias(won, shown_first, pairs), "order_flip_rate": flips}
