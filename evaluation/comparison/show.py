"""A benchmark's results as tables for the terminal."""

from rich.console import Group
from rich.table import Table

QUALITY = {"win_rate": 3, "length_controlled_win_rate": 3, "reward": 2, "gold_reward": 3, "kl": 2}  # digits
COST = ("sampled_tokens", "train_seconds", "peak_memory_mb")


def table(results: dict, dataset: str) -> Group:
    """One data set: a row per algorithm. What it is worth, with intervals over seeds and prompts; and what it took."""
    seeds = len(results["seeds"])
    quality = Table(title=f"{dataset}: against {results['baseline']}, judged by {results['judge']}, {seeds} seeds")
    cost = Table()
    for part, columns in (
        (quality, ("win rate", "length controlled", "reward", "gold", "KL")),
        (cost, ("tokens to target", "reached", "sampled tokens", "seconds", "peak MB")),
    ):
        part.title_justify = "left"
        part.add_column("algorithm")
        for column in columns:
            part.add_column(column, justify="right")
    cost.add_column("flags")
    summary = results["by_dataset"][dataset]
    if fair := summary.get("fair_judge"):
        quality.caption, quality.caption_justify = f"is this a fair judge? {fair}", "left"
    taken = (summary["efficiency"] or {"algorithms": {}})["algorithms"]
    for name, means in summary["means"].items():
        cells = [c for c in results["cells"] if (c["dataset"], c["algorithm"]) == (dataset, name)]
        quality.add_row(name, *(spread(means.get(key), digits) for key, digits in QUALITY.items()))
        quick = taken.get(name)
        cost.add_row(
            name,
            f"{quick['mean']:,.0f}" if quick else "",
            f"{quick['reached_count']}/{seeds}" if quick else "",
            *(f"{sum(cell[key] for cell in cells) / len(cells):,.0f}" for key in COST),
            ", ".join(sorted({flag for cell in cells for flag in cell["flags"]})),
        )
    return Group(quality, cost)


def tuning(results: dict, dataset: str) -> Table:
    """What was tried and chosen for every algorithm, apart from what is compared: a row a try."""
    own = results["tuning"]
    seeds = ", ".join(map(str, own["seeds"]))
    drawn = Table(title=f"{dataset}: settings chosen on seeds {seeds}", title_justify="left")
    drawn.add_column("algorithm")
    drawn.add_column("settings")
    drawn.add_column(own["metric"], justify="right")
    drawn.add_column("KL", justify="right")
    drawn.add_column("")
    for algorithm, choice in own["by_dataset"][dataset].items():
        for i, each in enumerate(choice["tries"]):
            settings = ", ".join(f"{name}={value:g}" for name, value in each["args"].items())
            score = spread(each[own["metric"]], 3) or "failed"
            kl = spread(each["kl"], 2)
            drawn.add_row(algorithm if i == 0 else "", settings, score, kl, "chosen" if i == choice["chosen"] else "")
    return drawn


def common_kl(results: dict, dataset: str) -> Table | None:
    """Reward where algorithms' KL is the same, between their tries; None where no two share one, or there is none."""
    own = results["tuning"]["common_kl"].get(dataset)
    if not own or not own["levels"]:
        return None
    seeds = ", ".join(map(str, results["tuning"]["seeds"]))
    title = f"{dataset}: {own['reward']} at a common KL, interpolated between the tries on seeds {seeds}"
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("algorithm")
    for level in own["levels"]:
        drawn.add_column(f"KL {level:.2f}", justify="right")
    for algorithm, rewards in own["rewards"].items():
        drawn.add_row(algorithm, *(spread(reward, 3) or "not reached" for reward in rewards))
    return drawn


def spread(estimate: dict | None, digits: int) -> str:
    """`mean (low-high)`, the mean alone where it has no interval, or nothing."""
    if estimate is None:
        return ""
    if estimate["interval"] is None:
        return f"{estimate['mean']:.{digits}f}"
    low, high = estimate["interval"]
    return f"{estimate['mean']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
