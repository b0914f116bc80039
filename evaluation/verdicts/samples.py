"""Samples of policies as judges compare them: read from files or tables, checked to be of the same prompts."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rlhf_trl_ext.data.reading import local_records

OBJECTIVE = "rewards/"  # before the name of a reward function, as in TRL's logs
Samples = list[dict]
SCORES = ("reward", "gold_reward", "kl", "entropy", "completion_tokens", "truncated")


def read_samples(path: str | Path) -> Samples:
    """Rows of a samples file: JSON lines or an array, plain or .gz, or parquet; see `as_samples`.

    Raises ValueError naming the file, and the line, for what is absent or holds no samples.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; write it with `python -m launchers.generate`.")
    return as_samples(local_records(str(path), Path(path)), str(path))


def as_samples(records: Iterable[tuple[str, dict]], source: str) -> Samples:
    """Rows with `prompt`, `completion` as text where they have one, and scores that are finite numbers or None.

    records: (place, row), the place for messages. Completions may be text or messages, whose texts are taken.
    Raises ValueError for a row that is no sample, and for no rows.
    """
    samples = [_sample(place, row) for place, row in records]
    if not samples:
        raise ValueError(f"{source} holds no samples: one JSON object a line, with prompt and completion, is needed.")
    return samples


def _sample(place: str, row) -> dict:
    try:
        sample = {**row, "prompt": row["prompt"] if isinstance(row["prompt"], str) else list(row["prompt"])}
        if "completion" in row:
            sample["completion"] = text_of(row["completion"])
    except (TypeError, KeyError):
        raise ValueError(
            f"{place} holds no samples: one JSON object a line, with prompt and completion (text or messages), is "
            "needed."
        ) from None
    scores = [key for key in row if key in SCORES or key.startswith(OBJECTIVE)]
    return sample | {key: _finite(row[key]) for key in scores}


def _finite(value) -> float | bool | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def text_of(completion: str | list[dict]) -> str:
    """The text of a completion: itself, its one message, or several messages with their roles.

    The content of a message is text or a list of parts with `text`. Raises TypeError or KeyError for anything else.
    """
    if isinstance(completion, str):
        return completion
    texts = [(message.get("role", "assistant"), message["content"]) for message in completion]
    texts = [(role, text if isinstance(text, str) else "".join(part["text"] for part in text)) for role, text in texts]
    if len(texts) == 1:
        return texts[0][1]
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in texts)


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
