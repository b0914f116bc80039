"""How far judges agree with each other, with the gold reward, and with human labels."""

from pathlib import Path

import numpy as np

from evaluation.verdicts.pairwise import judge_pairs
from evaluation.verdicts.ranking import every_pair
from evaluation.verdicts.store import Verdicts
from rlhf_trl_ext.data.reading import local_records
from rlhf_trl_ext.data.samples import Samples
from rlhf_trl_ext.judging.judge import ScoreJudge
from rlhf_trl_ext.judging.verdicts import Verdict
from rlhf_trl_ext.statistics import cohen_kappa, wilson_interval


def agreement(verdicts: dict[str, Verdicts], labels: Verdicts | None = None) -> list[dict]:
    """How far judges agree with each other and with labels: `agreement` (share, Wilson interval), Cohen's `kappa`, n.

    verdicts: judge -> its verdicts. Pairs that one of the two did not read are left out.
    """
    judges = {**verdicts, **({"labels": labels} if labels else {})}
    rows = []
    for a, b in every_pair(list(judges)):
        both = [
            (x.outcome, y.outcome)
            for pair in judges[a].keys() & judges[b].keys()
            for x, y in zip(judges[a][pair], judges[b][pair], strict=True)
            if x.outcome is not None and y.outcome is not None
        ]
        if both:
            first, second = np.array(both).T
            matches = int((first == second).sum())
            rows.append(
                {
                    "judges": [a, b],
                    "pairs": len(both),
                    "agreement": matches / len(both),
                    "agreement_ci": wilson_interval(matches, len(both)),
                    "kappa": cohen_kappa(first, second),
                }
            )
    return rows


def gold_verdicts(samples: dict[str, Samples], pairs: list[tuple[str, str]]) -> Verdicts | None:
    """Verdicts of the gold reward where every sample has one."""
    if any(row.get("gold_reward") is None for rows in samples.values() for row in rows):
        return None
    return judge_pairs(ScoreJudge("gold_reward"), samples, pairs)


def read_labels(path: str | Path, pairs: list[tuple[str, str]], count: int) -> Verdicts:
    """Human labels, one JSON object a line: `policy`, `pair` (row of the samples, from 0) and `outcome` of the policy.

    Raises ValueError with the line for anything else.
    """
    if not Path(path).is_file():
        raise ValueError(f"labels={path}: no such file.")
    against = dict(pairs)  # the baseline of every policy
    labels = {pair: [Verdict(None)] * count for pair in pairs}
    for place, row in local_records(str(path), Path(path)):
        try:
            policy, pair, outcome = row["policy"], row["pair"], row["outcome"]
        except (KeyError, TypeError):
            raise ValueError(f"labels={place}: policy, pair and outcome are needed.") from None
        numbers = type(pair) is int and type(outcome) in (int, float)  # true and "1" are neither
        if policy not in against or not numbers or not 0 <= pair < count or outcome not in (0.0, 0.5, 1.0):
            raise ValueError(
                f"labels={place}: policy={policy}, pair={pair}, outcome={outcome}; allowed are "
                f"{', '.join(against)}, 0 to {count - 1}, and 0, 0.5 or 1."
            )
        given = labels[policy, against[policy]]
        if given[pair].outcome not in (None, outcome):
            raise ValueError(
                f"labels={place}: policy={policy}, pair={pair} has two outcomes, {given[pair].outcome:g} and "
                f"{outcome:g}; give one for each pair."
            )
        given[pair] = Verdict(float(outcome), float(outcome))
    if not any(verdict.outcome is not None for row in labels.values() for verdict in row):
        raise ValueError(f"labels={path} holds no label: one JSON object a line, with policy, pair and outcome.")
    return labels
