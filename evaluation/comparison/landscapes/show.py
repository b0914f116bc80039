"""The benchmark's results for people: a table as text, and learning curves as pictures."""

from pathlib import Path

from rich.table import Table

COLUMNS = (
    "algorithm",
    "steps",
    "rate",
    "critic",
    "final reward",
    "over GRPO, equal steps",
    "solved",
    "tokens / GRPO's",
)


def table(landscape: str, rows: dict[str, dict]) -> Table:
    """One landscape; a row per algorithm, with 95 % intervals over seeds; *: the end of the rates tried."""
    grid = Table(title=landscape, title_justify="left")
    for column in COLUMNS:
        grid.add_column(column, justify="left" if column == "algorithm" else "right", no_wrap=True)
    for name, row in rows.items():
        rates = [float(rate) for rate in row["tried"]]
        edge = "*" if len(rates) > 1 and row["learning_rate"] in (min(rates), max(rates)) else ""
        grid.add_row(
            name,
            str(row["steps"]),
            f"{row['learning_rate']:g}{edge}",
            f"x{row['critic_factor']:g}" if row["tried_critic"] else "",
            _spread(row["final_reward"], 3),
            _spread(row["equal_steps"], 3) if "equal_steps" in row else "",
            f"{row['solved']}/{row['seeds']}",
            _spread(row["tokens_ratio"], 2) if "tokens_ratio" in row else "",
        )
    return grid


def _spread(values: list[float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean} ({low} - {high})"


def draw(landscape: str, rows: dict[str, dict], path: Path) -> None:
    """Learning curves with their bands as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, row in rows.items():
        tokens = [count / 1000 for count in row["curve"]["sampled_tokens"]]
        (line,) = axes.plot(tokens, row["curve"]["mean"], label=f"{name} (learning rate {row['learning_rate']:g})")
        axes.fill_between(tokens, row["curve"]["low"], row["curve"]["high"], color=line.get_color(), alpha=0.2)
    seeds = max(row["seeds"] for row in rows.values())
    axes.set_title(f"{landscape}: mean and 95 % interval over {seeds} seeds")
    axes.set_xlabel("sampled tokens (thousands)")
    axes.set_ylabel("true reward (share of the maximum)")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=150)
