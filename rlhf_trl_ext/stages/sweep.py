"""Sweeps: what their jobs recorded, the metric that ranks them (`sweep.metric`), and the table at the end."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from rlhf_trl_ext.stages.downstream import DOWNSTREAM, SHORT

Jobs = list[tuple[list[str], dict]]  # (overrides, record)
Numbers = dict[str, float]
LESS_IS_BETTER = ("loss", "kl", "perplexity", "seconds", "tokens", "memory_mb")
RECORD = "JOB_RECORD"  # the variable with the file into which a job of hydra/launcher=accelerate writes its record


def in_sweep() -> bool:
    """Whether this process runs a job of a sweep."""
    return RECORD in os.environ or (HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN)


def check(config) -> None:
    """Raises ConfigError for a metric where nothing is ranked, and for one that no job will record."""
    from rlhf_trl_ext.configuration.checks import ConfigError

    metric = (config.get("sweep") or {}).get("metric")
    if metric is None:
        return
    if not in_sweep():
        raise ConfigError(f"sweep.metric={metric}: there are no jobs to rank; add -m and values to try (seed=0,1).")
    measured = config.get("evaluate") or config.get("args", {}).get("eval_strategy", "no") != "no"
    if "policies" not in config and _name(metric).startswith("eval_") and not measured:
        raise ConfigError(f"sweep.metric={metric}: nothing is measured on held-out rows; give evaluate=true.")


def folder(base: Path) -> Path:
    """`base`, or in a sweep a folder of the job's own below it, which the same overrides find again."""
    if not in_sweep():
        return base
    task = [each for each in HydraConfig.get().overrides.task if not each.startswith(("output_", "sweep."))]
    return base / hashlib.sha256(json.dumps(sorted(task)).encode()).hexdigest()[:12]


def keep(jobs: Jobs, config, record: dict | None) -> float | None:
    """Keep a job's record for the end of the sweep, where one is running; returns what an optimising sweeper gets."""
    if record is None or os.environ.get("RANK", "0") != "0" or not in_sweep():
        return None
    if RECORD in os.environ:
        from rlhf_trl_ext.files import finite

        Path(os.environ[RECORD]).write_text(json.dumps(finite(record), allow_nan=False))
        return None
    jobs.append((list(HydraConfig.get().overrides.task), record))
    return best(record, **config.get("sweep", {}))[0]


def numbers(record: dict) -> dict[str, Numbers]:
    """What can rank a job: of every policy of a pipeline, by name; of a stage under the name ""."""
    if "policies" in record:
        rows = record["policies"].items()
        return {name: {key.removesuffix("_mean"): value for key, value in row.items()} for name, row in rows}
    logged = _last_logged(Path(record["folder"], "metrics.jsonl")) if "folder" in record else {}
    return {"": {**logged, **record, **record.get("metrics", {})}}


def _last_logged(log: Path) -> dict:
    """The last value of everything in a metrics.jsonl, read without what trains; torn lines are left out."""
    logged: dict = {}
    for line in log.read_bytes().splitlines() if log.is_file() else []:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            logged |= row if isinstance(row, dict) else {}
    return logged


def best(record: dict, metric: str | None, maximize: bool | None = None) -> tuple[float, str]:
    """The best value of a metric in a record, and the policy that has it; NaN where none has."""
    values = [(value, name) for name, own in numbers(record).items() if (value := _value(own, metric)) is not None]
    return (max if more_is_better(metric, maximize) else min)(values, default=(float("nan"), ""))


def more_is_better(metric: str | None, maximize: bool | None) -> bool:
    """maximize: null: by the name of the metric."""
    return not _name(metric).endswith(LESS_IS_BETTER) if maximize is None else maximize


def _name(metric: str | None, own: Numbers | None = None) -> str:
    """Under which a metric is recorded: as it is called, or what it is short for. own: the numbers of a job."""
    name = (metric or "").removeprefix("metrics.")
    return name if name in (own or {}) else SHORT.get(name, name)


def _value(own: Numbers, metric: str | None) -> float | None:
    name = _name(metric, own)
    value = own.get(name, own.get(f"eval_{name}"))
    return float(value) if isinstance(value, int | float) and value == value else None


@contextlib.contextmanager
def table_at_end(jobs: Jobs, ranking: dict):
    """Print the table of `jobs` at the end, also where a job failed. ranking: `metric` and `maximize`, put in later."""
    try:
        yield
    finally:
        if jobs:
            from rich.console import Console

            console = Console()
            console.width = max(console.width, 160)  # a log file has no width of its own
            console.print(table(jobs, **ranking))


def table(jobs: Jobs, metric: str | None = None, maximize: bool | None = None):
    """A row for every job, of a pipeline for every policy: the overrides in which jobs differ, metrics, and the folder.

    metric: ranks the rows, those without it last; what was asked for and recorded by none is said below.
    """
    from rich.markup import escape
    from rich.table import Table

    from rlhf_trl_ext.stages.ending import SHOWN

    labels = differences([overrides for overrides, _ in jobs])
    rows = [
        (label, name, own, record["folder"])
        for label, (_, record) in zip(labels, jobs, strict=True)
        for name, own in numbers(record).items()
    ]
    of_policies = any(name for _, name, _, _ in rows)
    names = dict.fromkeys(_name(metric, own) for _, _, own, _ in rows if metric)
    names |= dict.fromkeys([*DOWNSTREAM, "train_seconds"] if of_policies else ["steps", "train_seconds", *SHOWN])
    names = [name for name in names if any(_value(own, name) is not None for _, _, own, _ in rows)]
    headers = [name.removeprefix("eval_").replace("_", " ") for name in names]
    made = Table("job", *["policy"] * of_policies, *headers, "folder")
    sign = -1 if more_is_better(metric, maximize) else 1
    if metric:
        rows.sort(key=lambda row: float("inf") if (value := _value(row[2], metric)) is None else sign * value)
        if all(_value(own, metric) is None for _, _, own, _ in rows):
            made.caption = f"sweep.metric={metric}: no job recorded it"
    for column in made.columns:
        column.overflow = "fold"
    for job, name, own, place in rows:
        values = ["" if (value := _value(own, key)) is None else f"{value:.4g}" for key in names]
        made.add_row(escape(job), *[name] * of_policies, *values, escape(place))
    return made


def differences(jobs: list[list[str]]) -> list[str]:
    """For each of several jobs the overrides that not all of them have; all of them where there is one job."""
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [" ".join(each.removeprefix("++") for each in overrides if each not in common) for overrides in jobs]
