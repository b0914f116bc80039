"""A benchmark's results as a table for the terminal."""

from rich.table import Table

COLUMNS = (
    "algorithm",
    "win rate",
    "len.-contr.",
    "reward",
    "gold",
    "KL",
    "tokens to target",
    "reached",
    "tokens",
)
COLUMNS += ("s", "MB", "flags")


def table(results: dict, dataset: str) -> Table:
    """One data set: a row per algorithm, means over seeds with intervals over seeds and prompts."""
    seeds = len(results["seeds"])
    title = f"{dataset}: against {results['baseline']}, judged by {results['judge']}, {seeds} seeds"
    drawn = Table(title=title, title_justify="left")
    for column in COLUMNS:
        drawn.add_column(column, justify="left" if column in ("algorithm", "flags") else "right", no_wrap=True)
    found = results["by_dataset"][dataset]
    taken = (found["efficiency"] or {"algorithms": {}})["algorithms"]
    for name, means in found["means"].items():
        cells = [c for c in results["cells"] if (c["dataset"], c["algorithm"]) == (dataset, name)]
        quick = taken.get(name)
        drawn.add_row(
            name,
            spread(means.get("win_rate"), 3),
            spread(means.get("length_controlled_win_rate"), 3),
            spread(means.get("reward"), 2),
            spread(means.get("gold_reward"), 3),
            spread(means.get("kl"), 2),
            f"{quick['mean']:,.0f}" if quick else "",
            f"{quick['reached_count']}/{seeds}" if quick else "",
            *(f"{sum(cell[key] for cell in cells) / len(cells):,.0f}" for key in COST),
            ", ".join(sorted({flag for cell in cells for flag in cell["flags"]})),
        )
    return drawn


COST = ("sampled_tokens", "train_seconds", "peak_memory_mb")


def spread(told: dict | None, digits: int) -> str:
    """`mean (low to high)`, or nothing."""
    if told is None:
        return ""
    low, high = told["interval"]
    return f"{told['mean']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
