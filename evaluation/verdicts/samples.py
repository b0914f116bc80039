"""Samples of two policies side by side: checked to be of the same prompts, prompts numbered, lengths compared."""

import json

import numpy as np

from rlhf_trl_ext.data.samples import Samples


def check_pairs(policy: Samples, baseline: Samples) -> None:
    """Raises ValueError unless both have the same prompts in the same order, and at least 2."""
    if len(policy) != len(baseline) or any(a["prompt"] != b["prompt"] for a, b in zip(policy, baseline, strict=True)):
        raise ValueError(
            f"samples of different prompts cannot be compared ({len(policy)} and {len(baseline)} rows): "
            "generate both with the same dataset, seed and samples.max_prompts."
        )
    if len(policy) < 2:
        raise ValueError(f"{len(policy)} pair(s) to compare: at least 2 are needed for an interval.")


def prompt_ids(rows: Samples) -> np.ndarray:
    """A number for every row, `(N,)`, the same for rows of the same prompt."""
    known: dict[str, int] = {}
    texts = (row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"]) for row in rows)
    return np.array([known.setdefault(text, len(known)) for text in texts])


def length_differences(policy: Samples, baseline: Samples) -> np.ndarray:
    """Characters of the policy's completion minus the baseline's, `(N,)`."""
    return np.array([len(a["completion"]) - len(b["completion"]) for a, b in zip(policy, baseline, strict=True)])
