"""Questions of MT-Bench and of AlpacaEval in one form."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

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


def read_questions(path: str, references: str | None = None) -> list[Question]:
    """MT-Bench's question.jsonl (`turns`, `category`, `question_id`) or AlpacaEval's (`instruction`, `dataset`).

    path: plain or .gz. references: MT-Bench's reference_answer file, matched by question_id.
    Raises ValueError with file and line for a missing file or field.
    """
    known = {}
    for number, row in _rows(references, "references") if references else ():
        try:
            known[row["question_id"]] = tuple(row["choices"][0]["turns"])
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"references={references}, line {number}: question_id and choices are needed.") from None
    questions = []
    for number, row in _rows(path, "questions"):
        turns = row.get("turns") or [row.get("instruction")]
        if not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise ValueError(f"questions={path}, line {number}: `turns` or `instruction` is needed.")
        category = row.get("category") or row.get("dataset") or "all"
        questions.append(Question(category, tuple(turns), known.get(row.get("question_id"), ())))
    if not questions:
        raise ValueError(f"questions={path} is empty.")
    return questions


def _rows(path: str, name: str):
    if not Path(path).is_file():
        raise ValueError(f"{name}={path}: no such file.")
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{name}={path}, line {number} is no JSON object.")
            yield number, row
