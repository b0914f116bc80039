"""The end of a sweep that ran in one process: a row for every job."""

import contextlib

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

Jobs = list[tuple[list[str], dict]]  # (overrides, record)


def keep(jobs: Jobs, record: dict | None) -> None:
    """Add a job's record to `jobs`, where a sweep is running and there is one."""
    if record is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        jobs.append((list(HydraConfig.get().overrides.task), record))


@contextlib.contextmanager
def table_at_end(jobs: Jobs):
    """Print the table of `jobs` at the end, also where a job failed."""
    try:
        yield
    finally:
        if jobs:
            from rich.console import Console

            console = Console()
            console.width = max(console.width, 140)  # a log file has no width of its own
            console.print(table(jobs))


def table(jobs: Jobs):
    """A row for every job: the overrides in which they differ, its cost, its metrics on held-out rows, its folder."""
    from rich.table import Table

    from rlhf_trl_ext.stages.ending import SHOWN

    common = set.intersection(*(set(overrides) for overrides, _ in jobs)) if len(jobs) > 1 else set()
    metrics = [key for key in SHOWN if any(key in record["metrics"] for _, record in jobs)]
    made = Table("job", "steps", "seconds", *(key.removeprefix("eval_") for key in metrics), "folder")
    for overrides, record in jobs:
        own = " ".join(override for override in overrides if override not in common)
        values = ["" if record["metrics"].get(key) is None else f"{record['metrics'][key]:.4g}" for key in metrics]
        made.add_row(own, str(record["steps"]), str(record["train_seconds"]), *values, record["folder"])
    return made
