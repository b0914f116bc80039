"""What a benchmark shows, as plain data: cells, differences between algorithms, win-rate matrix, sample efficiency."""

import numpy as np

from evaluation.comparison import efficiency
from evaluation.comparison.differences import compare, estimate, with_holm
from evaluation.comparison.learning_curves import WINDOW
from evaluation.comparison.run import CONTROLLED, Run
from evaluation.verdicts.ranking import every_pair

# Where two algorithms are compared sample by sample: name of a number of each sample -> what it is called.
COMPARED = {"win_rate": "win rate", "gold_reward": "gold reward", "reward": "reward", "kl": "KL"}


def benchmark_results(
    header: dict, runs: list[Run], rows: list[str], threshold: str | float | None, pairs: bool = True
) -> dict:
    """benchmark.json: header, cells, and by data set differences, A/A, win-rate matrix and sample efficiency.

    pairs: whether algorithms are compared with each other, which the many tries of a tuning are not.
    """
    results = {**header, "cells": [run.cell(row) for run in runs for row in rows], "by_dataset": {}}
    judges = {run.dataset: run.results["judge"] for run in runs if run.results}
    labelled = [f"{judge} ({dataset})" for dataset, judge in judges.items()]  # a data set without gold has another
    results["judge"] = ", ".join(labelled if len(set(judges.values())) > 1 else set(judges.values())) or None
    for dataset in header["datasets"]:
        own = [run for run in runs if run.dataset == dataset and run.results]
        results["by_dataset"][dataset] = _of_dataset(header, own, rows, threshold, pairs)
    results["in_words"] = in_words(results)
    return results


def _of_dataset(header: dict, runs: list[Run], rows: list[str], threshold: str | float | None, pairs: bool) -> dict:
    """Only algorithms that no seed lacks are compared."""
    whole = [row for row in rows if runs and all(row in run.results["policies"] for run in runs)]
    own = [row for row in whole if row in header["algorithms"]]
    compared = own if pairs else []
    pair = header["aa_control"] if header["aa_control"] and set(header["aa_control"]) <= set(whole) else None
    return {
        "fair_judge": runs[0].results.get("fair_judge") if runs else None,
        "differences": [row for metric in (*COMPARED, CONTROLLED) for row in _compared(runs, compared, metric)],
        "aa_control": with_holm([row for metric in COMPARED for row in _compared(runs, pair or [], metric)]),
        "means": {row: _means(runs, row) for row in whole},
        "matrix": _matrix(runs, [header["baseline"], *compared]),
        "efficiency": _efficiency(runs, whole, threshold),
    }


def _compared(runs: list[Run], rows: list[str], metric: str) -> list[dict]:
    values = {row: [run.per_prompt(row, metric) for run in runs] for row in rows}
    crossed = prompts_match(runs)
    if len(rows) < 2 or any(np.isnan(own).all() for seeds in values.values() for own in seeds):
        return []
    name = COMPARED.get(metric, "length-controlled win rate")
    if metric == CONTROLLED and len(runs) < 2:
        return []  # one number a seed, and one seed
    return [{**row, "key": metric} for row in compare(values, every_pair(rows), name, crossed)]


def _means(runs: list[Run], row: str) -> dict[str, dict]:
    """Mean and interval over seeds and prompts of every metric that all runs have."""
    values = {metric: [run.per_prompt(row, metric) for run in runs] for metric in (*COMPARED, CONTROLLED)}
    known = {metric: own for metric, own in values.items() if not any(np.isnan(seed).all() for seed in own)}
    found = {metric: estimate(own, crossed=prompts_match(runs)) for metric, own in known.items()}
    return {metric: _rate(own) if metric in ("win_rate", CONTROLLED) else own for metric, own in found.items()}


def _rate(own: dict) -> dict:
    """An estimate of a rate, whose interval ends at 0 and 1."""
    return {**own, "interval": [min(max(end, 0.0), 1.0) for end in own["interval"]]}


def prompts_match(runs: list[Run]) -> bool:
    """Whether all runs have the same prompts in the same order, as with `dataset.seed` pinned."""
    prompts = [[sample["prompt"] for sample in next(iter(run.samples.values()), [])] for run in runs]
    return len(runs) > 1 and all(own == prompts[0] for own in prompts[1:])


def _matrix(runs: list[Run], names: list[str]) -> dict:
    """How often the row's algorithm beats the column's: mean and interval; None where the two were not judged."""
    cells: dict[str, dict] = {a: {b: None for b in names} for a in names}
    for a, b in every_pair(names):
        won = [run.between(a, b) for run in runs]
        if won and not any(own is None or np.isnan(own).all() for own in won):
            crossed = prompts_match(runs)
            cells[a][b] = _rate(estimate(won, 0.5, crossed))
            cells[b][a] = _rate(estimate([1 - own for own in won], 0.5, crossed))
    return {"names": names, "cells": cells}


def _efficiency(runs: list[Run], rows: list[str], threshold: str | float | None) -> dict | None:
    """Tokens to the threshold; None where nothing samples."""
    curves = {row: [run.curve(row) for run in runs] for row in rows}
    curves = {row: own for row, own in curves.items() if own and all(seed is not None for seed in own)}
    if not curves:
        return None
    if isinstance(threshold, int | float):
        targets, target = [float(threshold)] * len(runs), f"reward {threshold:g}"
    else:
        reference = threshold if threshold in curves else next(iter(curves))
        horizon = min(own[0][-1] for group in curves.values() for own in group)
        targets = [efficiency.final_reward(own, WINDOW * horizon) for own in curves[reference]]
        target = f"the last reward of {reference} on the same seed"
    return {"target": target, "targets": targets, "algorithms": efficiency.summarise(curves, targets)}


def in_words(results: dict) -> list[str]:
    """Sentences on the results: the budget, each data set's differences by the judge, A/A, failures."""
    sentences = [results["budget"]["in_words"]]
    if tuning := results.get("tuning"):
        sentences.append(tuning_in_words(tuning, results["seeds"]))
    for dataset, own in results["by_dataset"].items():
        prefix = f"{dataset}: " if len(results["by_dataset"]) > 1 else ""
        judged = [row for row in own["differences"] if row["key"] == "win_rate"]
        sentences += [prefix + line for line in _best(own["means"], judged, results["baseline"])]
        sentences += [prefix + row["in_words"] for row in judged]
        if own["aa_control"]:
            a, b = results["aa_control"]
            names = [row["metric"] for row in own["aa_control"] if row["distinguishable"]]
            verdict = f"DISTINGUISHABLE in {', '.join(names)}" if names else "not distinguishable"
            sentences.append(f"{prefix}A/A: {a} and {b}, the same algorithm with other seeds, are {verdict}.")
    lost = [cell for cell in results["cells"] if cell["status"] == "failed"]
    sentences += [f"{cell['algorithm']} on {cell['dataset']}, seed {cell['seed']}, failed." for cell in lost]
    flagged: dict[str, set] = {}
    for cell in results["cells"]:
        flagged.setdefault(cell["algorithm"], set()).update(cell.get("flags") or [])
    names = {name: ", ".join(sorted(flags)) for name, flags in flagged.items() if flags}
    return sentences + [f"{name} is flagged on at least one seed: {flags}." for name, flags in names.items()]


def rule(tuning: dict) -> str:
    """Which of the tries is chosen."""
    best = f"the best by {tuning['metric']}"
    within = tuning["within"]
    return f"the one of lowest KL within {within:g} standard errors of {best}" if within else best


def tuning_in_words(tuning: dict, seeds: list[int]) -> str:
    """What was chosen on which seeds, and whether the grid was wide enough."""
    chosen = {
        (algorithm, dataset): choice
        for dataset, own in tuning["by_dataset"].items()
        for algorithm, choice in own.items()
    }
    tries = len(next(iter(chosen.values()))["tries"])
    text = f"Settings are, of {tries} tries for each algorithm, {rule(tuning)} on seeds "
    text += f"{', '.join(map(str, tuning['seeds']))}; everything else here is of seeds {', '.join(map(str, seeds))}."
    ends = [f"{', '.join(own['at_the_end'])} of {name} on {data}" for (name, data), own in chosen.items()]
    ends = [end for end in ends if not end.startswith(" of ")]
    return text + (f" The chosen lies at the end of what was tried for {'; '.join(ends)}: try further." if ends else "")


def _best(means: dict[str, dict], differences: list[dict], baseline: str) -> list[str]:
    """Who has the highest win rate, and whom that can be said of."""
    compared = {row[side] for row in differences for side in ("a", "b")}
    rates = {row: own["win_rate"] for row, own in means.items() if row in compared}
    if not rates:
        return []
    best = max(rates, key=lambda row: rates[row]["mean"])
    low, high = rates[best]["interval"]
    pairs = [(row["a"], row["b"]) for row in differences if row["distinguishable"] and best in (row["a"], row["b"])]
    apart = [b if a == best else a for a, b in pairs]
    verdict = f"is better than {', '.join(apart)}" if apart else "is told apart from no other algorithm"
    rate = f"{rates[best]['mean']:.3f} ({low:.3f} to {high:.3f})"
    return [f"{best} has the highest win rate against {baseline}, {rate}, and {verdict}."]
