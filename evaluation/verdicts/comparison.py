"""All that one judge or several say about policies and their baseline, as one dictionary."""

import json
from pathlib import Path

import numpy as np

from evaluation.verdicts.length_control import Anchor, alpaca_eval, joint
from evaluation.verdicts.ranking import every_pair, ranking
from evaluation.verdicts.win_rate import check_pairs, length_differences, prompt_ids, summary
from rlhf_trl_ext.judging.judge import Judge, ScoreJudge, Verdict
from rlhf_trl_ext.statistics import cohen_kappa, in_words, wilson_interval

Samples = list[dict]
Verdicts = dict[tuple[str, str], list[Verdict]]


def read_samples(path: str | Path) -> Samples:
    """Rows of a samples.jsonl. Raises ValueError naming the file when it is absent or no such file."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; write it with `python -m launchers.generate`.")
    try:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        if all("prompt" in row for row in rows):
            return rows
    except (json.JSONDecodeError, TypeError):
        pass
    raise ValueError(f"{path} holds no samples: one JSON object a line, with prompt and completion, is needed.")


def judged(judge: Judge, samples: dict[str, Samples], pairs: list[tuple[str, str]]) -> Verdicts:
    """Verdicts of a judge on pairs of policies. All pairs are checked before the first is judged (`check_pairs`)."""
    for a, b in pairs:
        check_pairs(samples[a], samples[b])
    return {(a, b): judge.compare(samples[a], samples[b]) for a, b in pairs}


def chosen_pairs(which: str, baseline: str, policies: list[str]) -> list[tuple[str, str]]:
    """Every policy against the baseline, and with `all` every two policies too. Raises ValueError for anything else."""
    if which not in ("baseline", "all"):
        raise ValueError(f"pairs={which}: allowed are baseline, all.")
    return [(name, baseline) for name in policies] + (every_pair(policies) if which == "all" else [])


def against_baseline(verdicts: Verdicts, samples: dict[str, Samples], baseline: str) -> dict[str, dict]:
    """For every policy its `summary` against the baseline, its length-controlled win rate, and `in_words`."""
    names = [a for a, b in verdicts if b == baseline]
    rows = {name: summary(verdicts[name, baseline], samples[name], samples[baseline]) for name in names}
    games = {}
    for name in names:
        if "length" in rows[name]:
            read = [i for i, verdict in enumerate(verdicts[name, baseline]) if verdict.outcome is not None]
            preferences = np.array([verdicts[name, baseline][i].preference for i in read])
            lengths = -length_differences(samples[name], samples[baseline])[read]
            games[name] = (prompt_ids(samples[name])[read], lengths, preferences)
    for name, controlled in (joint(games) if games else {}).items():
        rows[name].update(controlled)
    for name in names:
        rows[name]["in_words"] = in_words(name, baseline, rows[name])
    return rows


def with_anchor(verdicts: list[Verdict], policy: Samples, baseline: Samples, anchor: Anchor) -> dict:
    """AlpacaEval-2's length-controlled win rate; unreadable verdicts take no part in the fit, as upstream."""
    preferences = np.array([np.nan if v.outcome is None else v.preference for v in verdicts])
    difficulty = anchor.difficulty[: len(policy)]
    return alpaca_eval(preferences, -length_differences(policy, baseline).astype(float), difficulty, anchor)


def ranked(verdicts: Verdicts, names: list[str]) -> list[dict]:
    """Bradley-Terry `ranking` over all verdicts; pairs that could not be read take no part."""
    games = {
        pair: np.array([np.nan if v.outcome is None else v.outcome for v in said]) for pair, said in verdicts.items()
    }
    return ranking(names, games)


def agreement(verdicts: dict[str, Verdicts], labels: Verdicts | None = None) -> list[dict]:
    """How far judges agree with each other and with labels: `agreement` (share, Wilson interval), Cohen's `kappa`, n.

    verdicts: judge -> its verdicts. Pairs that one of the two did not read are left out.
    """
    told = {**verdicts, **({"labels": labels} if labels else {})}
    found = []
    for a, b in every_pair(list(told)):
        both = [
            (x.outcome, y.outcome)
            for pair in told[a].keys() & told[b].keys()
            for x, y in zip(told[a][pair], told[b][pair], strict=True)
            if x.outcome is not None and y.outcome is not None
        ]
        if both:
            first, second = np.array(both).T
            same = int((first == second).sum())
            found.append(
                {
                    "judges": [a, b],
                    "pairs": len(both),
                    "agreement": same / len(both),
                    "agreement_ci": wilson_interval(same, len(both)),
                    "kappa": cohen_kappa(first, second),
                }
            )
    return found


def gold_verdicts(samples: dict[str, Samples], pairs: list[tuple[str, str]]) -> Verdicts | None:
    """Verdicts of the gold reward where every sample has one."""
    if any(row.get("gold_reward") is None for rows in samples.values() for row in rows):
        return None
    return judged(ScoreJudge("gold_reward"), samples, pairs)


def read_labels(path: str | Path, pairs: list[tuple[str, str]], count: int) -> Verdicts:
    """Human labels, one JSON object a line: `policy`, `pair` (row of the samples, from 0) and `outcome` of the policy.

    Raises ValueError with the line for anything else.
    """
    if not Path(path).is_file():
        raise ValueError(f"labels={path}: no such file.")
    against = dict(pairs)  # the baseline of every policy
    labels = {pair: [Verdict(None)] * count for pair in pairs}
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            policy, pair, outcome = row["policy"], int(row["pair"]), float(row["outcome"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"labels={path}, line {number}: policy, pair and outcome are needed.") from None
        if policy not in against or not 0 <= pair < count or outcome not in (0.0, 0.5, 1.0):
            raise ValueError(
                f"labels={path}, line {number}: policy={policy}, pair={pair}, outcome={outcome}; allowed are "
                f"{', '.join(against)}, 0 to {count - 1}, and 0, 0.5 or 1."
            )
        labels[policy, against[policy]][pair] = Verdict(outcome, outcome)
    return labels


def floor(judge: Judge, again: Samples, baseline: Samples) -> dict:
    """A/A: samples of the baseline with another seed against the baseline; a fair judgement covers one half."""
    check_pairs(again, baseline)
    told = summary(judge.compare(again, baseline), again, baseline)
    low, high = told["win_rate_ci"]
    return {**told, "covers_half": low <= 0.5 <= high}
