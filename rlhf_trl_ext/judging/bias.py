"""What a judge reacts to besides quality: the order in which it sees the answers, and their length."""

import numpy as np

from rlhf_trl_ext.statistics import cohen_kappa, mean_interval, wilson_interval


def position_bias(
    won: np.ndarray, shown_first: np.ndarray, pairs: np.ndarray | None = None
) -> dict[str, float | int | None]:
    """How much being shown first helps, over single judgements (one pair in one order each).

    won: `(J,)`, 1 where the policy was preferred, 0.5 for a tie. shown_first: `(J,)` bool, whether it stood first.
    pairs: `(J,)` integers, judgements of one pair in both orders share one; None: all are of different pairs.
    Returns win_rate_shown_first, win_rate_shown_second, `position_bias` = their difference in [-1, 1] (0 = none; with
    both orders of every pair it is `mean(p_AB[first] + p_BA[first]) - 1`), first_choices and second_choices (counts),
    and `first_choice_rate` with its interval over pairs. A rate is None where there is nothing to average.
    """
    won, shown_first = np.asarray(won, dtype=float), np.asarray(shown_first, dtype=bool)
    first, second = won[shown_first], won[~shown_first]
    chose_first = np.where(shown_first, won, 1 - won)
    rates = [float(part.mean()) if len(part) else None for part in (first, second)]
    return {
        "win_rate_shown_first": rates[0],
        "win_rate_shown_second": rates[1],
        "position_bias": None if None in rates else rates[0] - rates[1],
        "first_choices": int((chose_first == 1).sum()),
        "second_choices": int((chose_first == 0).sum()),
        "first_choice_rate": float(chose_first.mean()) if len(won) else None,
        "first_choice_ci": mean_interval(chose_first, (0, 1), pairs) if len(won) else None,
    }


def order_flip_rate(won_first: np.ndarray, won_second: np.ndarray) -> float | None:
    """Share of pairs judged differently when the order is exchanged.

    won_first, won_second: `(N,)`, the policy's outcome when it stood first, and second. None for no pairs.
    """
    won_first, won_second = np.asarray(won_first), np.asarray(won_second)
    return float((won_first != won_second).mean()) if len(won_first) else None


def length_bias(outcomes: np.ndarray, differences: np.ndarray) -> dict[str, float | int | None]:
    """Whether the longer answer wins.

    outcomes: `(N,)` of the policy; differences: `(N,)`, characters of the policy's answer minus the baseline's.
    Returns `longer_wins` (share of decided pairs of unequal length that the longer one won) with its Wilson interval,
    `length_correlation` (Pearson, outcome with difference; None when either is constant), the mean difference, and
    the kappa of the judge with "always prefer the longer".
    """
    outcomes, differences = np.asarray(outcomes, dtype=float), np.asarray(differences, dtype=float)
    decided = (differences != 0) & (outcomes != 0.5)
    longer = (outcomes[decided] == 1) == (differences[decided] > 0)
    constant = np.ptp(outcomes) == 0 or np.ptp(differences) == 0
    return {
        "longer_wins": float(longer.mean()) if decided.any() else None,
        "longer_wins_ci": wilson_interval(longer.sum(), int(decided.sum())) if decided.any() else None,
        "length_correlation": None if constant else float(np.corrcoef(outcomes, differences)[0, 1]),
        "length_difference_mean": float(differences.mean()),
        "length_rule_kappa": cohen_kappa(outcomes, (np.sign(differences) + 1) / 2),
    }
