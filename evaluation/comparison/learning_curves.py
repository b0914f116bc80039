"""Training reward against sampled tokens, from the log of a run."""

from pathlib import Path

import numpy as np

from rlhf_trl_ext.callbacks.records import as_row
from rlhf_trl_ext.data.samples import finite_number

WINDOW = 0.2  # of the tokens, over which a curve is averaged
Curve = tuple[np.ndarray, np.ndarray]


def curve(folder: Path) -> Curve | None:
    """Sampled tokens so far and mean reward of the batches since the last entry; None for what samples none.

    Entries whose reward is no finite number are left out.
    """
    path, rows = folder / "metrics.jsonl", []
    if path.exists():
        with path.open("rb") as file:  # line by line: a log may hold a million
            for line in file:
                row = as_row(line) or {}
                pair = finite_number(row.get("sampled_tokens")), finite_number(row.get("reward"))
                rows += [pair] if None not in pair else []
    return tuple(np.array(rows, float).T) if rows else None


def smoothed(whole: Curve, grid: np.ndarray, width: float) -> np.ndarray:
    """Mean reward over the last `width` tokens at each point of the grid; NaN before there are as many, and after."""
    tokens, rewards = whole
    sums = np.concatenate([[0.0], np.cumsum(rewards * np.diff(tokens, prepend=0.0))])
    known = np.concatenate([[0.0], tokens])

    def total(places):
        return np.interp(places, known, sums)

    values = (total(grid) - total(grid - width)) / width
    return np.where((grid < width) | (grid > tokens[-1] * (1 + 1e-9)), np.nan, values)
