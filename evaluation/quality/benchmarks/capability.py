"""Accuracy of policies on held-out tasks against the model they started from, by EleutherAI's lm-eval."""

from pathlib import Path

import numpy as np
import torch

from evaluation.files import write_json
from rlhf_trl_ext.configuration.paths import adapter_base, adapter_folder, split_revision
from rlhf_trl_ext.statistics import mean_interval

DROP = 0.02  # a loss of accuracy that is flagged, where its interval excludes none


def capability(
    models: dict[str, str],
    baseline: str,
    tasks: list[str],
    include_path: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
) -> dict[str, dict]:
    """Task -> model -> `value`, its 95 % interval, and for policies `difference`, `difference_ci`, `flagged`.

    models: name -> folder or hub id, the baseline among them. tasks: names of lm-eval. include_path: folder with more
    task files, which may name local data. limit: items a task. Items are the same for all models, so differences are
    paired; the first metric of a task counts. flagged: more than 0.02 lost, and the interval excludes zero.
    Raises ValueError when lm-eval is not installed, or a task or the baseline is unknown.
    """
    if baseline not in models:
        raise ValueError(f"baseline={baseline}: no such model; allowed are {', '.join(models)}.")
    manager = _manager(tasks, include_path)
    scores = {name: _scores(path, tasks, manager, limit, batch_size) for name, path in models.items()}
    return {
        task: against({name: by_task[task] for name, by_task in scores.items()}, baseline) for task in scores[baseline]
    }


def against(scores: dict[str, np.ndarray], baseline: str) -> dict[str, dict]:
    """Means of scores on the same items with intervals, and paired differences to the baseline. scores: `(N,)` each."""
    comparisons = {}
    for name, values in scores.items():
        share = set(values.tolist()) <= {0.0, 1.0}  # an accuracy
        interval = mean_interval(values, (0, 1) if share else None)
        comparisons[name] = {"value": float(values.mean()), "ci": interval, "items": len(values)}
        if name != baseline:
            lost = values - scores[baseline]
            low, high = mean_interval(lost, (-1, 1) if set(lost.tolist()) <= {-1.0, 0.0, 1.0} else None)
            comparisons[name] |= {"difference": float(lost.mean()), "difference_ci": [low, high]}
            comparisons[name]["flagged"] = bool(lost.mean() < -DROP and high < 0)
    return comparisons


def _manager(tasks: list[str], include_path: str | None):
    """lm-eval's index of thousands of task files, which takes seconds to read. Raises ValueError as `capability`."""
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError:
        raise ValueError("lm-eval is not installed: pip install 'rlhf-trl-ext[benchmarks]'.") from None
    manager = TaskManager(include_path=include_path)
    known = set(manager.all_tasks)
    for task in tasks:
        if task not in known:
            raise ValueError(f"tasks={task}: lm-eval knows no such task; see `lm_eval ls tasks`, or give include_path.")
    return manager


def _scores(path: str, tasks: list[str], manager, limit: int | None, batch_size: int) -> dict:
    """Task -> the first metric of every item, in the order of the items."""
    import lm_eval

    adapters = adapter_folder(path)
    name, revision = split_revision(adapter_base(adapters) if adapters else path)
    loading = {"pretrained": name, **({"peft": adapters} if adapters else {})}
    loading |= {"revision": revision} if revision else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={**loading, "device": device},
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        batch_size=batch_size,
        log_samples=True,
        bootstrap_iters=0,
    )
    scores = {}
    for task, samples in results["samples"].items():
        rows = sorted(samples, key=lambda row: row["doc_id"])
        scores[task] = np.array([float(row[row["metrics"][0]]) for row in rows])
    return scores


def write_capability(config) -> dict[str, dict]:
    """Run `conf/capability.yaml` and write its JSON."""
    models = {"baseline": config.baseline, **config.policies}
    results = capability(models, "baseline", config.tasks, config.include_path, config.limit, config.batch_size)
    write_json(Path(config.output), results)
    return results
