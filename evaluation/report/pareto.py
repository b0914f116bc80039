"""Policies under several objectives: their means, and which of them no other beats in all."""

from evaluation.report.runs import Runs
from rlhf_trl_ext.data.samples import OBJECTIVE


def frontier(points: dict[str, tuple[float, ...]]) -> list[str]:
    """Names on the Pareto frontier: no other point is at least as high in every objective and higher in one."""

    def beats(a, b):
        return all(x >= y for x, y in zip(a, b, strict=True)) and a != b

    return [name for name, own in points.items() if not any(beats(other, own) for other in points.values())]


def objective_means(runs: Runs, dataset: str) -> tuple[list[str], dict[str, tuple[list, list]]] | None:
    """The first two objectives, and each policy's scores of both: one array over prompts for each seed.

    Only policies that all seeds have are told, the baseline first. None where samples have fewer than two objectives.
    """
    per_seed = runs.of(dataset)
    if not per_seed:
        return None
    baseline = runs.results["baseline"]
    keys = [key for key in per_seed[0].samples[baseline][0] if key.startswith(OBJECTIVE)]
    if len(keys) < 2:
        return None
    names = [name for name in (baseline, *runs.rows) if all(name in run.samples for run in per_seed)]
    points = {name: tuple([run.per_prompt(name, key) for run in per_seed] for key in keys[:2]) for name in names}
    return [key.removeprefix(OBJECTIVE) for key in keys[:2]], points
