"""What a benchmark found, as plain data: cells, differences between algorithms, win-rate matrix, sample efficiency."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.comparison import efficiency
from evaluation.comparison.differences import compare, estimate, settled
from evaluation.proofs.speed.sample_efficiency import WINDOW, Curve, curve
from evaluation.verdicts.comparison import Samples, Verdicts
from evaluation.verdicts.ranking import every_pair
from rlhf_trl_ext.callbacks.records import read_metrics

# Where two algorithms are compared sample by sample: name of a number of each sample -> what it is called.
COMPARED = {"win_rate": "win rate", "gold_reward": "gold reward", "reward": "reward", "kl": "KL"}
CONTROLLED = "length_controlled_win_rate"
CELL = ("win_rate", "win_rate_ci", CONTROLLED, "length_controlled_ci", "reward_mean", "gold_reward_mean", "kl_mean")
CELL += ("completion_tokens_mean", "sampled_tokens", "train_seconds", "peak_memory_mb", "flags")


@dataclass
class Found:
    """One data set and seed: its folder, the records of its stages, why rows failed, samples, verdicts and results."""

    dataset: str
    seed: int
    folder: Path
    records: dict[str, dict]
    failed: dict[str, str]
    samples: dict[str, Samples] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=dict)
    results: dict | None = None

    def cell(self, row: str) -> dict:
        """Everything about one algorithm here."""
        cell = {"dataset": self.dataset, "seed": self.seed, "algorithm": row, "folder": self.folder.name}
        if row not in (self.results or {"policies": ()})["policies"]:
            return {**cell, "status": "failed", "error": self.failed.get(row, "its baseline failed")}
        policy, profile = self.results["policies"][row], self.folder / row / "profile.json"
        phases = json.loads(profile.read_text())["phases"] if profile.exists() else None
        kept = {key: policy.get(key) for key in CELL}
        return {**cell, "status": "finished", "steps": self.records[row]["steps"], **kept, "phases": phases}

    def per_prompt(self, row: str, metric: str) -> np.ndarray:
        """One number for every prompt, NaN where there is none; the length-controlled win rate is one number."""
        if metric == CONTROLLED:
            return np.array([self.results["policies"][row].get(metric, np.nan)], float)
        if metric == "win_rate":
            told = [verdict.outcome for verdict in self.verdicts[row, self.results["baseline"]]]
        else:
            told = [sample.get(metric) for sample in self.samples[row]]
        return np.array([np.nan if value is None else value for value in told], float)

    def curve(self, row: str) -> Curve | None:
        """Training reward against sampled tokens; None for what samples none."""
        metrics = self.folder / row / "metrics.jsonl"
        rows = read_metrics(metrics) if row in self.records and metrics.exists() else []
        return curve(self.folder / row) if any("reward" in line and "sampled_tokens" in line for line in rows) else None


def benchmark_results(header: dict, found: list[Found], rows: list[str], threshold: str | float | None) -> dict:
    """benchmark.json: header, cells, and by data set differences, A/A, win-rate matrix and sample efficiency."""
    results = {**header, "cells": [run.cell(row) for run in found for row in rows], "by_dataset": {}}
    judges = {run.dataset: run.results["judge"] for run in found if run.results}
    told = [f"{judge} ({dataset})" for dataset, judge in judges.items()]  # a data set without gold has another
    results["judge"] = ", ".join(told if len(set(judges.values())) > 1 else set(judges.values())) or None
    for dataset in header["datasets"]:
        runs = [run for run in found if run.dataset == dataset and run.results]
        results["by_dataset"][dataset] = _of_dataset(header, runs, rows, threshold)
    results["in_words"] = in_words(results)
    return results


def _of_dataset(header: dict, runs: list[Found], rows: list[str], threshold: str | float | None) -> dict:
    """Only algorithms that no seed lacks are compared."""
    whole = [row for row in rows if runs and all(row in run.results["policies"] for run in runs)]
    own = [row for row in whole if row in header["algorithms"]]
    pair = header["again"] if header["again"] and set(header["again"]) <= set(whole) else None
    return {
        "differences": [told for metric in (*COMPARED, CONTROLLED) for told in _compared(runs, own, metric)],
        "again": settled([told for metric in COMPARED for told in _compared(runs, pair or [], metric)]),
        "means": {row: _means(runs, row) for row in whole},
        "matrix": _matrix(runs, [header["baseline"], *own]),
        "efficiency": _efficiency(runs, whole, threshold),
    }


def _compared(runs: list[Found], rows: list[str], metric: str) -> list[dict]:
    values = {row: [run.per_prompt(row, metric) for run in runs] for row in rows}
    if len(rows) < 2 or any(np.isnan(own).all() for told in values.values() for own in told):
        return []
    name = COMPARED.get(metric, "length-controlled win rate")
    if metric == CONTROLLED and len(runs) < 2:
        return []  # one number a seed, and one seed
    return [{**row, "key": metric} for row in compare(values, every_pair(rows), name)]


def _means(runs: list[Found], row: str) -> dict[str, dict]:
    """Mean and interval over seeds and prompts of every metric that all runs have."""
    values = {metric: [run.per_prompt(row, metric) for run in runs] for metric in (*COMPARED, CONTROLLED)}
    return {metric: estimate(told) for metric, told in values.items() if not any(np.isnan(own).all() for own in told)}


def _matrix(runs: list[Found], names: list[str]) -> dict:
    """How often the row's algorithm beats the column's: mean and interval; None where they are the same."""
    cells: dict[str, dict] = {a: {b: None for b in names} for a in names}
    for a, b in every_pair(names) if runs else []:
        first, second = (a, b) if (a, b) in runs[0].verdicts else (b, a)
        won = [np.array([np.nan if v.outcome is None else v.outcome for v in r.verdicts[first, second]]) for r in runs]
        for one, other, outcomes in ((first, second, won), (second, first, [1 - own for own in won])):
            cells[one][other] = estimate(outcomes, centre=0.5)
    return {"names": names, "cells": cells}


def _efficiency(runs: list[Found], rows: list[str], threshold: str | float | None) -> dict | None:
    """Tokens to the threshold; None where nothing samples."""
    curves = {row: [run.curve(row) for run in runs] for row in rows}
    curves = {row: told for row, told in curves.items() if told and all(own is not None for own in told)}
    if not curves:
        return None
    if isinstance(threshold, int | float):
        targets, told = [float(threshold)] * len(runs), f"reward {threshold:g}"
    else:
        reference = threshold if threshold in curves else next(iter(curves))
        horizon = min(own[0][-1] for given in curves.values() for own in given)
        targets = [efficiency.final_reward(own, WINDOW * horizon) for own in curves[reference]]
        told = f"the last reward of {reference} on the same seed"
    return {"target": told, "targets": targets, "algorithms": efficiency.summarise(curves, targets)}


def in_words(results: dict) -> list[str]:
    """What was found, in sentences: the budget, each data set's differences by the judge, A/A, failures."""
    told = [results["budget"]["in_words"]]
    for dataset, found in results["by_dataset"].items():
        prefix = f"{dataset}: " if len(results["by_dataset"]) > 1 else ""
        judged = [row for row in found["differences"] if row["key"] == "win_rate"]
        told += [prefix + line for line in _best(found["means"], judged, results["baseline"])]
        told += [prefix + row["in_words"] for row in judged]
        if found["again"]:
            a, b = results["again"]
            names = [row["metric"] for row in found["again"] if row["distinguishable"]]
            verdict = f"DISTINGUISHABLE in {', '.join(names)}" if names else "not distinguishable"
            told.append(f"{prefix}A/A: {a} and {b}, the same algorithm with other seeds, are {verdict}.")
    lost = [cell for cell in results["cells"] if cell["status"] == "failed"]
    told += [f"{cell['algorithm']} on {cell['dataset']}, seed {cell['seed']}, failed." for cell in lost]
    flagged: dict[str, set] = {}
    for cell in results["cells"]:
        flagged.setdefault(cell["algorithm"], set()).update(cell.get("flags") or [])
    told_flags = {name: ", ".join(sorted(flags)) for name, flags in flagged.items() if flags}
    return told + [f"{name} is flagged on at least one seed: {flags}." for name, flags in told_flags.items()]


def _best(means: dict[str, dict], differences: list[dict], baseline: str) -> list[str]:
    """Who has the highest win rate, and whom that can be said of."""
    compared = {row[side] for row in differences for side in ("a", "b")}
    known = {row: told["win_rate"] for row, told in means.items() if row in compared}
    if not known:
        return []
    best = max(known, key=lambda row: known[row]["mean"])
    low, high = known[best]["interval"]
    pairs = [(row["a"], row["b"]) for row in differences if row["distinguishable"] and best in (row["a"], row["b"])]
    apart = [b if a == best else a for a, b in pairs]
    verdict = f"is better than {', '.join(apart)}" if apart else "is told apart from no other algorithm"
    rate = f"{known[best]['mean']:.3f} ({low:.3f} to {high:.3f})"
    return [f"{best} has the highest win rate against {baseline}, {rate}, and {verdict}."]
