"""Results as tidy tables for analyses of one's own: one row for every number.

from evaluation.report.tables import samples, tidy
tidy("outputs/benchmark").query("metric == 'gold_reward' and kind == 'final'").groupby("algorithm")["value"].mean()
"""

from pathlib import Path

import pandas as pd

from evaluation.comparison.run import Run
from evaluation.report.runs import read
from evaluation.report.training import only_logs, read_logs
from rlhf_trl_ext.callbacks.records import read_metrics

KEYS = ("dataset", "seed", "algorithm")
COLUMNS = (*KEYS, "kind", "metric", "step", "sampled_tokens", "value")
HELD_OUT = "eval_"
FINAL = {"reward_mean": "reward", "gold_reward_mean": "gold_reward", "kl_mean": "kl"}
NOT_METRICS = ("step", "max_steps", "sampled_tokens")


def tidy(folder: str | Path) -> pd.DataFrame:
    """All numbers of a benchmark, a pipeline or a folder of pipelines, one in each row.

    Columns: dataset, seed, algorithm, kind, metric, step, sampled_tokens, value. kind: `final` (of the samples that the
    trained policy draws, and what training cost), `training` (a training log) or `held_out` (an evaluation during
    training, without its `eval_`). step and sampled_tokens: optimizer steps and completion tokens by then; NaN for what
    samples none. A number that one step logs twice stands as it was logged first. A folder of runs without results, as
    launchers.adopt makes them, gives what they logged; algorithm is then the run's name, data set and seed are None.
    Raises ValueError for a folder without either.
    """
    if only_logs(folder):
        logs = read_logs([str(folder)])
        rows = [row for log in logs for row in _numbers(log.folder / "metrics.jsonl", (None, None, log.name))]
    else:
        rows = [row for run in read(folder).runs for row in _final(run) + _logged(run)]
    return pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(list(COLUMNS[:-1]), ignore_index=True)


def samples(folder: str | Path) -> pd.DataFrame:
    """Every sample of every policy and of the baseline: dataset, seed, algorithm, prompt (text) and what it has."""
    from rlhf_trl_ext.judging.prompt import as_text

    rows = [
        {**dict(zip(KEYS, (run.dataset, run.seed, name), strict=True)), **row, "prompt": as_text(row["prompt"])}
        for run in read(folder).runs
        for name, own in run.samples.items()
        for row in own
    ]
    return pd.DataFrame(rows)


def _final(run: Run) -> list[tuple]:
    """Numbers of results.json."""
    numbers = []
    for name, row in {run.results["baseline"]: run.results["baseline_result"], **run.results["policies"]}.items():
        record = run.records[name]
        place = (run.dataset, run.seed, name, "final")
        after = (record["steps"], record.get("sampled_tokens") or float("nan"))
        finals = {FINAL.get(key, key): value for key, value in row.items() if isinstance(value, int | float)}
        numbers += [(*place, metric, *after, float(value)) for metric, value in finals.items()]
    return numbers


def _logged(run: Run) -> list[tuple]:
    """Numbers of every metrics.jsonl."""
    names = (run.results["baseline"], *run.results["policies"])
    files = ((run.folder / name / "metrics.jsonl", (run.dataset, run.seed, name)) for name in names)
    return [row for path, place in files for row in _numbers(path, place)]


def _numbers(path: Path, place: tuple) -> list[tuple]:
    """Rows of a log. place: data set, seed and algorithm."""
    numbers, tokens = [], float("nan")
    for row in read_metrics(path) if path.exists() else []:
        tokens = row.get("sampled_tokens", tokens)
        for key, value in row.items():
            if key not in NOT_METRICS and isinstance(value, int | float):
                kind = "held_out" if key.startswith(HELD_OUT) else "training"
                numbers.append((*place, kind, key.removeprefix(HELD_OUT), row["step"], tokens, float(value)))
    return numbers
