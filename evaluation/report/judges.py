"""Tables of those who judged: language models, people, and how far they can be believed."""

import numpy as np

from evaluation.comparison.differences import estimate
from evaluation.report.runs import Runs
from evaluation.report.tabular import Cell, Table, number
from evaluation.verdicts.agreement import agreement
from evaluation.verdicts.pairwise import outcomes
from rlhf_trl_ext.judging.injection import not_measured

RATES = {"raw": "the judge alone", "human": "people alone"}
RATES |= {"prediction_powered": "prediction-powered", "rogan_gladen": "Rogan-Gladen"}


def by_judge(runs: Runs, dataset: str) -> Table | None:
    """Win rates by judges that judged later, and how far each agrees with the pipeline's own."""
    judges = dict.fromkeys(judge for run in runs.of(dataset) for judge in run.further)
    rows = []
    for judge in judges:
        own = [run for run in runs.of(dataset) if judge in run.further]
        for name in runs.rows:
            pair = (name, runs.results["baseline"])
            judged = [run for run in own if pair in run.further[judge]]
            values = [outcomes(run.further[judge][pair]) for run in judged]
            if not values or any(np.isnan(seed).all() for seed in values):
                continue
            unread = sum(int(np.isnan(seed).sum()) for seed in values)
            known = {judge: {(run.seed, *pair): run.further[judge][pair] for run in judged}}
            known["own"] = {(run.seed, *pair): run.verdicts[pair] for run in judged if pair in run.verdicts}
            match = next(iter(agreement(known)), {})
            cells = [number(match.get(key)) for key in ("agreement", "kappa")]
            rows.append([Cell(judge), Cell(name), number(estimate(values, centre=0.5)), *cells, number(unread, "d")])
    note = f"Against {runs.results['baseline']}, from stored verdicts. agrees: share of pairs judged alike by "
    note += f"{runs.results['judge']}, with Cohen's kappa. Verdicts that could not be read count nowhere."
    header = ["judge", "algorithm", "win rate", "agrees", "kappa", "unread"]
    return Table("By other judges", header, rows, note) if rows else None


def injections(runs: Runs, dataset: str) -> Table | None:
    """How often known injections in the worse reply turn the verdict of each judge that reads texts."""
    rows, judges = [], {}
    for run in runs.of(dataset):
        evaluations = run.results.get("evaluations") or {}
        reads = {run.results["judge"]: run.results.get("judge_reads_texts")}
        judges |= reads | {judge: own.get("judge_reads_texts") for judge, own in evaluations.items()}
        for judge, own in evaluations.items():
            for name, rate in (own.get("injection_flip_rate") or {}).items():
                if rate and name in runs.rows:
                    cells = [number({"mean": rate["rate"], "interval": rate["ci"]}), number(rate["trials"], "d")]
                    rows.append([Cell(judge), Cell(name), number(run.seed, "d"), *cells])
    tried = {row[0].text for row in rows}
    missing = [judge for judge, reads in judges.items() if reads and judge not in tried]
    if not rows and not missing:
        return None
    note = "Share of trials in which a known injection, appended to the reply that a judge finds worse, made it win. "
    note += " ".join(not_measured(judge) for judge in missing)
    return Table("Prompt injection", ["judge", "algorithm", "seed", "verdicts turned", "trials"], rows, note)


def people(runs: Runs, dataset: str) -> Table | None:
    """Win rates of every judge beside those of people who labelled some of its pairs, and corrected by their labels."""
    rows = []
    for run in runs.of(dataset):
        for judge, own in (run.results.get("evaluations") or {}).items():
            for name, policy in own["policies"].items():
                if (corrected := policy.get("corrected")) and name in runs.rows:
                    rates = [corrected[key] for key in RATES]
                    cells = [number(rate and {"mean": rate[0], "interval": rate[1:]}) for rate in rates]
                    counts = [number(corrected[key], "d") for key in ("labels", "pairs")]
                    rows.append([Cell(judge), Cell(name), number(run.seed, "d"), *cells, *counts])
    note = f"Win rates against {runs.results['baseline']}; the corrected ones take the judge's errors, as the labels "
    note += (
        "show them, out of its rate on all pairs. Rogan-Gladen is empty where the labels do not tell it from chance."
    )
    header = ["judge", "algorithm", "seed", *RATES.values(), "labels", "pairs"]
    return Table("By people", header, rows, note) if rows else None
