"""Policies judged pair by pair, each pair once, and what the verdicts of one judge say of them."""

from pathlib import Path

import numpy as np

from evaluation.verdicts import store
from evaluation.verdicts.length_control import LANGUAGE_MODELS, Anchor, LengthPrior, alpaca_eval, joint
from evaluation.verdicts.ranking import every_pair, ranking
from evaluation.verdicts.samples import check_pairs, length_differences, prompt_ids
from evaluation.verdicts.statistics import in_words
from evaluation.verdicts.store import Verdicts
from evaluation.verdicts.win_rate import summary
from rlhf_trl_ext.data.samples import Samples
from rlhf_trl_ext.files import read_mark
from rlhf_trl_ext.judging.judge import Judge, ScoreJudge
from rlhf_trl_ext.judging.language_model import LanguageModelJudge
from rlhf_trl_ext.judging.verdicts import compare
from rlhf_trl_ext.stages.identity import deciding, digest

AA_CONTROL = "aa_control"  # the name of other samples of the baseline, among policies


def judge_pairs(judge: Judge, samples: dict[str, Samples], pairs: list[tuple[str, str]]) -> Verdicts:
    """Verdicts of a judge on pairs of policies. All pairs are checked before the first is judged (`check_pairs`)."""
    for a, b in pairs:
        check_pairs(samples[a], samples[b])
    return {(a, b): judge.compare(samples[a], samples[b]) for a, b in pairs}


def judge_once(
    judge: Judge, config: dict, samples: dict[str, Samples], pairs: list[tuple[str, str]], folder: Path, entries: dict
) -> Verdicts:
    """Verdicts on pairs: those stored below `folder`, and the judge's on the others, which are stored as well.

    Of the stored ones, those that could not be read for want of an answer are asked for again.

    config: of the judge, which decides whether stored verdicts are its own. entries: judge ->
    `store.save`'s entry, as results list them; the judge's is put in.
    """
    identity = digest(deciding(config))
    known: Verdicts = {}
    for name, entry in entries.items():
        if entry["identity"] == identity:
            try:
                known = store.load(folder, entry, samples)
            except ValueError:  # a damaged file: everything is judged again
                known = {}
            if known:
                judge.name = name  # which may follow what it found in the samples
    missing = [pair for pair in pairs if pair not in known]
    changed = judge_pairs(judge, samples, missing) if missing else {}
    if judge.may_answer_later:
        changed |= _retried(judge, {pair: known[pair] for pair in pairs if pair in known}, samples)
    if changed:
        known = known | changed
        entries[judge.name] = store.save(folder, judge.name, identity, known, samples)
    return {pair: known[pair] for pair in pairs}


def _retried(judge: Judge, stored: Verdicts, samples: dict[str, Samples]) -> Verdicts:
    """Those of stored verdicts that change where unreadable ones are asked for again.

    A question that got an answer, or was refused for good, is in the judge's record and is not sent again.
    """
    verdicts: Verdicts = {}
    for (a, b), given in stored.items():
        unread = [place for place, verdict in enumerate(given) if verdict.outcome is None]
        if unread:
            sides = ([samples[name][place] for place in unread] for name in (a, b))
            later = dict(zip(unread, compare(judge, *sides, tolerant=True), strict=True))
            renewed = [later.get(place, verdict) for place, verdict in enumerate(given)]
            verdicts |= {(a, b): renewed} if renewed != given else {}
    return verdicts


def stored_entries(path: Path) -> dict[str, dict]:
    """The entries of stored verdicts in an earlier results file; none where there is no such file."""
    entries = (read_mark(path) or {}).get("verdicts")
    entries = entries if isinstance(entries, dict) else {}
    needed = {"file", "identity", "samples"}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict) and needed <= entry.keys()}


def stored_evaluations(path: Path, entries: dict[str, dict], samples: dict[str, Samples]) -> dict[str, dict]:
    """Evaluations of an earlier results file by further judges, where all samples are still those that were judged."""
    earlier = (read_mark(path) or {}).get("evaluations")
    earlier = earlier if isinstance(earlier, dict) else {}
    return {
        judge: evaluation
        for judge, evaluation in earlier.items()
        if judge in entries and store.current(entries[judge], samples) == set(samples)
    }


def pipeline_pairs(judge: Judge, baseline: str, policies: list[str]) -> list[tuple[str, str]]:
    """Every policy against the baseline, and every two policies where that takes no more than recorded scores."""
    return chosen_pairs("all" if isinstance(judge, ScoreJudge) else "baseline", baseline, policies)


def chosen_pairs(which: str, baseline: str, policies: list[str]) -> list[tuple[str, str]]:
    """Every policy against the baseline, and with `all` every two policies too. Raises ValueError for anything else."""
    if which not in ("baseline", "all"):
        raise ValueError(f"pairs={which}: allowed are baseline, all.")
    return [(name, baseline) for name in policies] + (every_pair(policies) if which == "all" else [])


def length_prior(judge: Judge) -> LengthPrior | None:
    """What is known beforehand of a judge's taste for length: something of language models, nothing of others."""
    return LANGUAGE_MODELS if isinstance(judge, LanguageModelJudge) else None


def against_baseline(
    verdicts: Verdicts, samples: dict[str, Samples], baseline: str, prior: LengthPrior | None = None
) -> dict[str, dict]:
    """For every policy its `summary` against the baseline, its length-controlled win rate, and `in_words`.

    prior: the judge's `length_prior`.
    """
    names = [a for a, b in verdicts if b == baseline]
    rows = {name: summary(verdicts[name, baseline], samples[name], samples[baseline]) for name in names}
    games = {}
    for name in names:
        if "length" in rows[name]:
            read = [i for i, verdict in enumerate(verdicts[name, baseline]) if verdict.outcome is not None]
            preferences = np.array([verdicts[name, baseline][i].preference for i in read])
            lengths = -length_differences(samples[name], samples[baseline])[read]
            games[name] = (prompt_ids(samples[name])[read], lengths, preferences)
    for name, controlled in (joint(games, prior) if games else {}).items():
        rows[name].update(controlled)
    for name in names:
        rows[name]["in_words"] = in_words(name, baseline, rows[name])
    return rows


def with_anchor(verdicts: list, policy: Samples, baseline: Samples, anchor: Anchor) -> dict:
    """AlpacaEval-2's length-controlled win rate; unreadable verdicts take no part in the fit, as upstream."""
    preferences = np.array([np.nan if v.outcome is None else v.preference for v in verdicts])
    difficulty = anchor.difficulty[: len(policy)]
    return alpaca_eval(preferences, -length_differences(policy, baseline).astype(float), difficulty, anchor)


def ranked(verdicts: Verdicts, names: list[str]) -> list[dict]:
    """Bradley-Terry `ranking` over all verdicts; pairs that could not be read take no part."""
    games = {pair: outcomes(own) for pair, own in verdicts.items()}
    return ranking(names, games)


def outcomes(verdicts: list) -> np.ndarray:
    """Outcomes `(N,)`, NaN where a verdict could not be read."""
    return np.array([np.nan if verdict.outcome is None else verdict.outcome for verdict in verdicts])


def aa_control(verdicts: list, other: Samples, baseline: Samples) -> dict:
    """A/A: other samples of the baseline against the baseline's; a fair judgement covers one half."""
    result = summary(verdicts, other, baseline)
    low, high = result["win_rate_ci"]
    return {**result, "covers_half": low <= 0.5 <= high}
