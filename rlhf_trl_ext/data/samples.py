"""Samples of policies as anyone's files hold them: prompt, completion as text or messages, scores."""

import math
from collections.abc import Iterable
from pathlib import Path

from rlhf_trl_ext.data.reading import local_records

OBJECTIVE = "rewards/"  # before the name of a reward function, as in TRL's logs
SCORES = ("reward", "gold_reward", "held_out_reward", "kl", "entropy", "completion_tokens", "truncated")
Samples = list[dict]


def read_samples(path: str | Path, key: str = "") -> Samples:
    """Rows of a samples file: JSON lines or an array, plain or .gz, or parquet; see `as_samples`.

    key: the setting that names the file, for messages. Raises ValueError naming the file, and the line, for what is
    absent or holds no samples.
    """
    name = f"{key}={path}" if key else str(path)
    if not Path(path).is_file():
        raise ValueError(f"{name}: no such file; write it with `python -m launchers.generate`.")
    return as_samples(local_records(name, Path(path)), name)


def as_samples(records: Iterable[tuple[str, dict]], source: str) -> Samples:
    """Rows with `prompt`, `completion` as text where they have one, and scores that are finite numbers, None, or NaN.

    None is a score that is absent (`null`), NaN one that is no finite number, which judges count as unreadable.

    records: (place, row), the place for messages. Completions may be text or messages, whose texts are taken.
    Raises ValueError for a row that is no sample, and for no rows.
    """
    samples = [_sample(place, row) for place, row in records]
    if not samples:
        raise ValueError(f"{source} holds no samples: one JSON object a line, with prompt and completion, is needed.")
    return samples


def _sample(place: str, row) -> dict:
    try:
        sample = {**row, "prompt": row["prompt"] if isinstance(row["prompt"], str) else _turns(row["prompt"])}
        if "completion" in row:
            sample["completion"] = text_of(row["completion"])
    except (TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{place} holds no samples: one JSON object a line, with prompt and completion (text or messages), is "
            "needed."
        ) from None
    scores = [name for name in row if name in SCORES or name.startswith(OBJECTIVE)]
    return sample | {name: _score(row[name]) for name in scores}


def _turns(prompt: list[dict]) -> list[dict]:
    """A conversation whose messages have a role and text. Raises TypeError or KeyError for anything else."""
    turns = [{**turn, "content": text_of([{**turn, "content": turn["content"] or ""}])} for turn in prompt]
    if not all(isinstance(turn["role"], str) for turn in turns):
        raise TypeError
    return turns


def _score(value) -> float | bool | None:
    return value if value is None or finite_number(value) is not None else math.nan


def finite_number(value) -> float | bool | None:
    """The value where it is a finite number, else None."""
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


def samples_of(source, name: str) -> Samples:
    """Samples of a file, a pandas table, a data set of `datasets`, or a list of rows. name: for messages."""
    if isinstance(source, str | Path):
        return read_samples(source, name)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        rows = [{k: v for k, v in row.items() if not _is_absent(v)} for row in source.to_dict("records")]
    else:
        rows = source.to_list() if hasattr(source, "to_list") else list(source)
    return as_samples(((f"{name}, row {number}", row) for number, row in enumerate(rows)), name)


def _is_absent(value) -> bool:
    """NaN, which pandas puts where a row has nothing."""
    return isinstance(value, float) and math.isnan(value)
