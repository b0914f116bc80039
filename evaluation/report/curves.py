"""Figures of what happened during training, and of what it cost in divergence."""

import numpy as np
from matplotlib.axes import Axes

from evaluation.comparison.run import Run
from evaluation.report.drawing import Palette, Picture, axes, legend
from evaluation.report.log_files import rows_after
from evaluation.report.runs import Runs
from rlhf_trl_ext.data.samples import finite_number

POINTS = 60
UNITS = {"reward": "learned reward (its own units)", "gold_reward": "gold reward (0 to 1)"}


def logged(run: Run, row: str, metric: str, held_out: bool = False) -> np.ndarray:
    """Sampled tokens and a metric from an algorithm's training log, `(2, N)`; empty where there is none.

    metric: `reward`, or the name of a reward function, which stands as `rewards/<name>/mean` in logs.
    """
    path = run.folder / row / "metrics.jsonl"
    key = ("eval_" if held_out else "") + (metric if metric == "reward" else f"rewards/{metric}/mean")
    rows = rows_after(path, 0)[0] if path.exists() else []
    pairs = [(finite_number(line.get("sampled_tokens")), finite_number(line.get(key))) for line in rows]
    return np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2).T


def smooth(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Mean over the last tenth of a curve's points, fewer at its beginning."""
    window = max(1, round(share * len(values)))
    sums = np.cumsum(np.insert(values, 0, 0.0))
    starts = np.maximum(np.arange(1, len(values) + 1) - window, 0)
    return (sums[1:] - sums[starts]) / (np.arange(1, len(values) + 1) - starts)


def band(one: Axes, curves: list[np.ndarray], name: str, palette: Palette) -> None:
    """Mean of smoothed curves, `(2, N)` each, where all have points, and a band from the lowest to the highest."""
    grid = np.linspace(max(own[0][0] for own in curves), min(own[0][-1] for own in curves), POINTS)
    values = np.array([np.interp(grid, own[0], smooth(own[1])) for own in curves])
    colour = palette.colour(name)
    one.plot(grid, values.mean(axis=0), palette.line(name), label=name, color=colour)
    if len(curves) > 1:
        one.fill_between(grid, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def learning(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Training reward against sampled tokens: mean over seeds, band from the lowest to the highest seed."""
    metrics = [m for m in UNITS if runs.shows(m) and any(_curves(runs, dataset, row, m) for row in runs.rows)]
    if not metrics:
        return None
    figure, panels = axes(len(metrics))
    for one, metric in zip(panels, metrics, strict=True):
        for row in runs.rows:
            curves = _curves(runs, dataset, row, metric)
            if not curves:
                continue
            band(one, [np.array([own[0] / 1000, own[1]]) for own in curves], row, palette)
        one.set(xlabel="sampled completion tokens (thousands)", ylabel=UNITS[metric])
    legend(figure, panels[0])
    caption = (
        "Mean reward of the completions sampled in training, over the last tenth of the run so far; a band goes from "
        "the lowest to the highest seed. What learns from a file has no curve."
    )
    return Picture(f"{dataset}-learning-curves", "Learning curves", caption, figure)


def _curves(runs: Runs, dataset: str, row: str, metric: str) -> list[np.ndarray]:
    curves = [logged(run, row, metric) for run in runs.of(dataset) if row in run.results["policies"]]
    return [curve for curve in curves if curve.shape[1] > 1]


def frontier(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Reward against divergence of the trained policies."""
    metrics = [m for m in UNITS if runs.shows(m) and _known(runs, dataset, f"{m}_mean")]
    if not metrics or not _known(runs, dataset, "kl_mean"):
        return None
    figure, panels = axes(len(metrics), height=3.4 if len(metrics) == 1 else 2.4, columns=1)
    for one, metric in zip(panels, metrics, strict=True):
        baselines = [run.results["baseline_result"] for run in runs.of(dataset)]
        start = np.mean([row[f"{metric}_mean"] for row in baselines])
        one.scatter(0, start, color="black", marker="x", label=runs.results["baseline"], zorder=3)
        for row in runs.rows:
            rows = [run.results["policies"][row] for run in runs.of(dataset) if row in run.results["policies"]]
            points = np.array([(own["kl_mean"], own[f"{metric}_mean"]) for own in rows]).reshape(-1, 2)
            style = {"color": palette.colour(row), "marker": palette.marker(row)}
            large = {"facecolors": "none", "edgecolors": style["color"], "marker": style["marker"]}
            large = large if palette.line(row) == "--" else style
            if len(points):
                one.scatter(*points.T, s=16, alpha=0.45, linewidths=0.8, **style)
                one.scatter(*points.mean(axis=0), s=60, label=row, zorder=3, **large)
        one.margins(0.1)
        one.set(xlabel="KL from the starting policy (nats per completion)", ylabel=UNITS[metric])
    legend(figure, panels[0])
    caption = (
        "Held-out prompts. Small marks are seeds, large ones their mean: the higher at a given divergence, the better."
    )
    return Picture(f"{dataset}-kl-reward", "Reward against divergence", caption, figure)


def _known(runs: Runs, dataset: str, key: str) -> bool:
    rows = [row for run in runs.of(dataset) for row in run.results["policies"].values()]
    return bool(rows) and all(row.get(key) is not None for row in rows)


def overoptimisation(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Gold against the learned reward, both on held-out prompts: training goes right, over-optimisation goes down."""
    if not _known(runs, dataset, "gold_reward_mean") or not _known(runs, dataset, "reward_mean"):
        return None
    figure, (one,) = axes(width=5.8)
    for run in runs.of(dataset):
        rewards, gold = (run.per_prompt(run.results["baseline"], metric) for metric in ("reward", "gold_reward"))
        centre, scale, start = np.nanmean(rewards), np.nanstd(rewards), [0.0, np.nanmean(gold)]
        one.scatter(*start, color="black", marker="x", s=20, zorder=3, label=runs.results["baseline"])
        for row in runs.rows:
            if row not in run.results["policies"]:
                continue
            path = _path(run, row, centre, max(scale, 1e-9))
            style = {"color": palette.colour(row)}
            one.plot(*np.array([start, *path]).T, linewidth=0.9, alpha=0.7, linestyle=palette.line(row), **style)
            hollow = {"facecolors": "none", "edgecolors": style["color"]} if palette.line(row) == "--" else style
            one.scatter(*path[-1], s=28, marker=palette.marker(row), label=row, zorder=3, **hollow)
    one.set(xlabel="learned reward (standard deviations of the starting policy's samples)", ylabel=UNITS["gold_reward"])
    legend(figure, one)
    caption = (
        "A line for every run, from the starting policy (x) over evaluations during training, where there were any, to "
        "the trained policy (mark). A line that bends down while it goes right has learnt to please the reward model "
        "only."
    )
    return Picture(f"{dataset}-overoptimisation", "Proxy against gold", caption, figure)


def _path(run: Run, row: str, centre: float, scale: float) -> list[list[float]]:
    """Learned reward, standardised, and gold of held-out evaluations and, last, of the trained policy."""
    proxy, gold = (logged(run, row, metric, held_out=True) for metric in ("reward", "gold_reward"))
    between = [[(p - centre) / scale, g] for p, g in zip(proxy[1], gold[1], strict=False)] if gold.size else []
    policy = run.results["policies"][row]
    return [*between, [(policy["reward_mean"] - centre) / scale, policy["gold_reward_mean"]]]
