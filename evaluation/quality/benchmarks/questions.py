"""Questions of MT-Bench and of AlpacaEval in one form."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf_trl_ext.data.reading import Located, hub_records, local_records

# MT-Bench's own temperatures (arXiv:2306.05685); every other category is sampled at the configured one.
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}


@dataclass(frozen=True)
class Question:
    """turns: what the user says, one after the other. references: a right answer to each turn, or none."""

    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()

    def temperature(self, otherwise: float) -> float:
        """The temperature that MT-Bench samples this category at."""
        return TEMPERATURES.get(self.category, otherwise)


@dataclass(frozen=True)
class Hub:
    """A data set of the hub: a split of it, or, where the data set is no plain table, one file of its repository."""

    name: str | None
    split: str = "train"
    file: str | None = None
    revision: str | None = None


def read_questions(path: str | None, references: str | None = None, hub: Hub | None = None) -> list[Question]:
    """MT-Bench's questions (`turns` or `prompt`, `category`, `question_id`) or AlpacaEval's (`instruction`, `dataset`).

    path: a local file, JSON or JSON lines, plain or .gz, or parquet; None: `hub` is read. references: MT-Bench's
    reference_answer file, matched by question_id (a number or text); without it a question's own `reference`, one a
    turn, counts.
    Raises ValueError with file and line for a missing file or field, ConnectionError when the hub cannot be reached.
    """
    if (path is None) == (hub is None):
        raise ValueError(f"questions={path}, hub.name={hub and hub.name}: give one of the two.")
    known = {}
    for place, row in _rows(_local(references, "references"), "references") if references else ():
        try:
            known[str(row["question_id"])] = tuple(row["choices"][0]["turns"])
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"references={place}: question_id and choices are needed.") from None
    records = _local(path, "questions") if path else _from_hub(hub)
    questions = []
    for place, row in _rows(records, "questions"):
        turns = row.get("turns") or row.get("prompt") or row.get("instruction")
        turns = turns if isinstance(turns, list) else [turns]
        if not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise ValueError(f"questions={place}: `turns`, `prompt` or `instruction` is needed.")
        category = row.get("category") or row.get("dataset") or "all"
        right = known.get(str(row.get("question_id")), ()) if references else tuple(row.get("reference") or ())
        questions.append(Question(category, tuple(turns), right))
    if not questions:
        raise ValueError(f"questions={path or hub.name} is empty.")
    if references and not any(question.references for question in questions):
        raise ValueError(
            f"references={references}: no question_id of {path or hub.name} is among them; give the references of "
            "these questions, or none."
        )
    return questions


def _local(path: str, name: str) -> Iterator[Located]:
    if not Path(path).is_file():
        raise ValueError(f"{name}={path}: no such file.")
    return local_records(path, Path(path))


def _from_hub(hub: Hub) -> Iterator[Located]:
    return hub_records(hub.name, hub.split, hub.revision, hub.file, instead="questions=<file>")


def _rows(records: Iterator[Located], name: str) -> Iterator[tuple[str, dict]]:
    """(file:line, row); ValueError for what is no JSON object."""
    for place, row in records:
        if not isinstance(row, dict):
            raise ValueError(f"{name}={place} is no JSON object.")
        yield place, row
