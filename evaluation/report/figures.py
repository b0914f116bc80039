"""Figures of results: who beats whom, how soon, at what cost, and what several objectives allow."""

import numpy as np
from matplotlib import rc_context
from matplotlib.patches import Rectangle

from evaluation.comparison.differences import estimate
from evaluation.comparison.run import CONTROLLED
from evaluation.report import curves, training
from evaluation.report.comparisons import comparisons
from evaluation.report.drawing import STYLE, Palette, Picture, axes, legend
from evaluation.report.pareto import frontier, objective_means
from evaluation.report.runs import Runs

PHASE_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#F0E442", "#7F7F7F", "#BBBBBB")


def pictures(runs: Runs) -> dict[str, list[Picture]]:
    """All figures that the results allow, by data set."""
    palette = Palette(runs.rows, runs.results.get("aa_control"))
    by_dataset = {}
    for dataset in runs.results["datasets"]:
        with rc_context(STYLE):
            made = [draw(runs, dataset, palette) for draw in DRAWN]
        by_dataset[dataset] = [picture for picture in made if picture is not None]
    return by_dataset


def forest(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Win rates against the baseline, raw and at equal lengths, with their intervals."""
    means = runs.results["by_dataset"][dataset]["means"]
    rows = [row for row in runs.rows if "win_rate" in means.get(row, {})]
    if not rows or not runs.shows("win_rate"):
        return None
    rows.sort(key=lambda row: means[row]["win_rate"]["mean"])
    figure, (one,) = axes(width=5.6, height=1.3 + 0.42 * len(rows))
    for place, row in enumerate(rows):
        for metric, shift, filled in (("win_rate", 0.12, True), (CONTROLLED, -0.18, False)):
            if metric not in means[row]:
                continue
            mean, (low, high) = means[row][metric]["mean"], means[row][metric]["interval"]
            if metric == CONTROLLED and len(runs.of(dataset)) == 1:
                low, high = _controlled_ends(runs, dataset, row) or (mean, mean)
            colour = palette.colour(row)
            one.hlines(place + shift, low, high, color=colour, linewidth=2 if filled else 1)
            face = colour if filled else "white"
            one.plot(mean, place + shift, palette.marker(row), color=colour, markerfacecolor=face, markersize=6)
    one.axvline(0.5, color="black", linestyle=":", linewidth=1)
    one.set_yticks(range(len(rows)), rows)
    one.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4))
    one.set(xlabel=f"win rate against {runs.results['baseline']} (share of prompts)", ylabel="algorithm")
    caption = "Filled: as judged; hollow: at equal lengths, where that can be told. Lines: 95 % intervals. An "
    caption += "algorithm whose line crosses one half is not distinguishable from the baseline."
    return Picture(f"{dataset}-forest", "Win rates against the baseline", caption, figure)


def _controlled_ends(runs: Runs, dataset: str, row: str) -> list[float] | None:
    """Of one seed: its own interval, which is over prompts."""
    return runs.of(dataset)[0].results["policies"][row].get("length_controlled_ci")


def matrix(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """How often the row's algorithm beats the column's; grey where that is not distinguishable from one half."""
    known, baseline = comparisons(runs, dataset), runs.results["baseline"]
    names = [name for name in (baseline, *runs.rows) if any(name in pair for pair in known)]
    if not runs.shows("win_rate") or len(names) < 2:
        return None
    size = 1.6 + 0.95 * len(names)
    figure, (one,) = axes(width=size + 0.6, height=size * 0.72)
    rates = np.full((len(names), len(names)), np.nan)
    for (a, b), own in known.items():
        if not {a, b} <= set(names):
            continue
        place, apart = (names.index(a), names.index(b)), own["distinguishable"]
        rates[place] = own["mean"] + (0 if own["direct"] else 0.5) if apart else np.nan
        ends = [f"{end:{'.2f' if own['direct'] else '+.2f'}}" for end in (own["mean"], *own["interval"])]
        colour = "white" if apart and abs(rates[place] - 0.5) > 0.32 else "black" if apart else "#767676"
        text = f"{ends[0]}\n{ends[1]} to {ends[2]}"
        one.text(*place[::-1], text, ha="center", va="center", fontsize=7, color=colour)
        if not apart:
            one.add_patch(Rectangle((place[1] - 0.5, place[0] - 0.5), 1, 1, color="#ececec", linewidth=0))
    image = one.imshow(rates, vmin=0, vmax=1, cmap="RdBu", aspect="auto")
    one.grid(False)
    one.set_xticks(range(len(names)), names, rotation=20, ha="right")
    one.set_yticks(range(len(names)), names)
    one.set(xlabel="algorithm that loses", ylabel="algorithm that wins")
    figure.colorbar(image, label="win rate of the row (share of prompts)", shrink=0.9)
    caption = (
        f"Judged by {runs.results['judge']}; ties count one half. Below each rate its 95 % interval over seeds and "
        "prompts. Grey: not distinguishable; two algorithms after Holm's adjustment for all pairs."
    )
    if any(not own["direct"] for own in known.values()):
        caption += f" With a sign: the two were not judged together, and it is the difference against {baseline}."
    return Picture(f"{dataset}-win-rates", "Who beats whom", caption, figure)


def efficiency(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Sampled tokens until the target."""
    summary = runs.results["by_dataset"][dataset]["efficiency"]
    rows = [row for row in runs.rows if row in (summary or {"algorithms": {}})["algorithms"]]
    if not rows:
        return None
    figure, (one,) = axes(width=6.2, height=1.2 + 0.38 * len(rows))
    for place, row in enumerate(reversed(rows)):
        result = summary["algorithms"][row]
        mean, interval = result["mean"] / 1000, np.array(result["interval"] or [result["mean"]] * 2) / 1000
        one.barh(place, mean, color=palette.colour(row), alpha=0.55 if palette.line(row) == "--" else 0.85, height=0.6)
        one.hlines(place, *interval, color="black", linewidth=1.2)
        label = f"{result['reached_count']} of {len(result['reached'])} reached"
        one.text(max(mean, interval[1]), place, f"  {label}", va="center", fontsize=7)
    horizon = summary["algorithms"][rows[0]]["horizon"] / 1000
    one.axvline(horizon, color="black", linestyle=":", linewidth=1)
    one.set_yticks(range(len(rows)), list(reversed(rows)))
    one.set_xlim(0, horizon * 1.28)
    one.set(xlabel="sampled completion tokens (thousands), up to the dotted line", ylabel="algorithm")
    caption = (
        f"Tokens until the training reward reaches {summary['target']}: mean of what each run took up to the dotted "
        "line, by the Kaplan-Meier curve, so that runs that did not reach it count; 95 % interval over seeds."
    )
    return Picture(f"{dataset}-sample-efficiency", "Sample efficiency", caption, figure)


def costs(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Seconds by phase, and peak memory."""
    cells = [c for c in runs.results["cells"] if c["dataset"] == dataset and c["status"] == "finished"]
    rows = [row for row in runs.rows if any(cell["algorithm"] == row for cell in cells)]
    if not rows:
        return None
    figure, (time, memory) = axes(2, width=4.4, height=1.5 + 0.34 * len(rows))
    own = {row: [cell for cell in cells if cell["algorithm"] == row] for row in rows}
    places = {row: len(rows) - 1 - place for place, row in enumerate(rows)}
    phases = list(dict.fromkeys(phase for cell in cells for phase in cell["phases"] or {}))
    for row, group in own.items():
        seconds = np.mean([cell["train_seconds"] for cell in group])
        profiled = [cell["phases"] for cell in group if cell["phases"]]
        shares = {phase: np.mean([taken.get(phase, 0) for taken in profiled]) for phase in phases if profiled}
        total, left = sum(shares.values()), 0.0
        for number, phase in enumerate(shares):
            width = seconds * shares[phase] / total
            time.barh(places[row], width, left=left, color=PHASE_COLOURS[number % 9], label=phase, height=0.6)
            left += width
        if not total:
            time.barh(places[row], seconds, color=palette.colour(row), height=0.6)
        peak = np.mean([cell["peak_memory_mb"] for cell in group])
        memory.barh(places[row], peak, color=palette.colour(row), alpha=0.85, height=0.6)
    for one, label in ((time, "training (seconds a run)"), (memory, "peak memory (MiB)")):
        one.set_yticks(list(places.values()), list(places))
        one.set(xlabel=label, ylabel="algorithm")
    legend(figure, time)
    caption = "Means over seeds. Seconds are wall time, and compare only where nothing else ran; "
    caption += (
        "they are split by phase where stages ran with profile=on. Memory is that of the training process at most."
    )
    return Picture(f"{dataset}-time-and-memory", "Time and memory", caption, figure)


def pareto(runs: Runs, dataset: str, palette: Palette) -> Picture | None:
    """Mean of one objective against another's for every policy, and which none beats in both."""
    means = objective_means(runs, dataset)
    if means is None:
        return None
    (x, y), points = means
    figure, (one,) = axes(width=5.8, height=3.8)
    centres = {}
    for name, (first, second) in points.items():
        estimates = [estimate(values) for values in (first, second)]
        centres[name] = tuple(own["mean"] for own in estimates)
        errors = [[own["mean"] - own["interval"][0]] for own in estimates]
        colour = palette.colour(name) if name in runs.rows else "black"
        style = {"color": colour, "marker": palette.marker(name), "label": name, "markersize": 6, "linewidth": 1}
        one.errorbar(*centres[name], xerr=errors[0], yerr=errors[1], capsize=2, **style)
    best = sorted(frontier(centres), key=lambda name: centres[name])
    one.plot(*np.array([centres[name] for name in best]).T, color="black", linestyle=":", linewidth=1, zorder=0)
    one.set(xlabel=f"{x} (mean, its reward's units)", ylabel=f"{y} (mean, its reward's units)")
    legend(figure, one)
    caption = (
        f"Held-out prompts, with 95 % intervals over seeds and prompts. On the Pareto frontier (dotted): "
        f"{', '.join(best)}; every other policy is beaten by one of these in both objectives, or in one and equalled "
        "in the other."
    )
    return Picture(f"{dataset}-pareto", "Pareto frontier", caption, figure)


DRAWN = (forest, curves.frontier, matrix, curves.learning, training.over_steps, curves.overoptimisation)
DRAWN += (efficiency, costs, pareto)
