"""What `launchers.label` and `launchers.revise` wrote, as a data set: preferences with a probability for every pair."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_trl_ext.data import reading, schema, splits
from rlhf_trl_ext.data.schema import BadRow, text_field, typed_field
from rlhf_trl_ext.quantities import Seed

if TYPE_CHECKING:
    from datasets import Dataset

FILES = {"preferences": "labels.jsonl", "demonstrations": "revisions.jsonl"}


class Labelled:
    """Rows of labels.jsonl: prompt, chosen, rejected, p_chosen in [0.5, 1].

    path: that file, or the folder that holds it; revisions.jsonl gives demonstrations. rest: the data set whose prompts
    were labelled; it gives every other view and the held-out rows. Without it the file gives them all, and
    `evaluation` of its prompts, by their hash, are held out.
    margin_scale: None for no margins; else TRL's `margin` column, which pushes the rewards' difference above
    `margin_scale * margin`. least_p: pairs whose p_chosen is below are left out.
    Raises ValueError for a malformed row, naming it, and when no row is left.
    """

    def __init__(
        self,
        path: str | None = None,
        rest: Any = None,
        margin_scale: float | None = None,
        least_p: float = 0.5,
        evaluation: float = 0.1,
        seed: Seed = 0,
    ) -> None:
        if not 0.5 <= least_p <= 1 or not 0 < evaluation < 1:
            raise ValueError(f"least_p={least_p}, evaluation={evaluation}: in [0.5, 1] and in (0, 1).")
        if path is not None and not Path(path).exists():
            raise ValueError(f"path={path} does not exist: give the labels.jsonl that launchers.label wrote.")
        self.path, self.rest, self.margin_scale, self.least_p = path, rest, margin_scale, least_p
        self.shares, self.seed = {"reward": 1 - evaluation, "evaluation": evaluation}, seed
        self.gold = getattr(rest, "gold", None)

    def load(
        self,
        view: Literal["demonstrations", "preferences", "prompts", "unpaired"],
        split: Literal["train", "evaluation"] = "train",
        tokenizer: Any = None,
    ) -> "Dataset":
        """Rows in TRL's columns, those of labels with p_chosen, and margin where it is wanted.

        "unpaired" gives preferences, which TRL takes apart.
        """
        from datasets import Dataset

        view = "preferences" if view == "unpaired" else view
        of_rest = split != "train" or (view != "preferences" and not self._holds(view))
        if self.rest is not None and of_rest:
            return self.rest.load(view, split, tokenizer)
        if self.path is None:
            raise ValueError("dataset.path has no value: give the labels.jsonl that launchers.label wrote.")
        name = "demonstrations" if view == "demonstrations" and self._holds(view) else "preferences"
        if not self._holds(name):
            raise ValueError(f"path={self.path} holds no {FILES[name]}: write it with launchers.label or revise.")
        kept = [row for row in self._rows(view, name) if self.rest is not None or self._bucket(row) == split]
        if not kept:
            raise ValueError(f"path={self.path} has no {view} for split={split}: label more, or lower dataset.least_p.")
        return Dataset.from_list(kept)

    def _holds(self, view: str) -> bool:
        """Whether the file is of this view: labels of preferences, revisions of demonstrations."""
        return view in FILES and self.path is not None and self._file(view).exists()

    def _file(self, view: str) -> Path:
        path = Path(self.path)
        if path.is_dir():
            return path / FILES[view]
        revisions = path.name == FILES["demonstrations"]
        return path if revisions == (view == "demonstrations") else Path("/nonexistent")

    def _bucket(self, row: dict) -> str:
        bucket = splits.bucket_of(row["prompt"], self.shares, self.seed)
        return "evaluation" if bucket == "evaluation" else "train"

    def _rows(self, view: str, name: str):
        file = self._file(name)
        for where, record in reading.local_records(file.name, file):
            try:
                if isinstance(record, BadRow):
                    raise record
                row = self._revision(record) if name == "demonstrations" else self._label(record, view)
            except BadRow as error:
                raise ValueError(f"path={self.path}, {where}: {error.reason}; label again, or mend the row.") from None
            if row is not None:
                yield row

    def _revision(self, record: dict) -> dict:
        prompt = typed_field(record, "prompt", list)
        return {"prompt": prompt, "completion": [schema.assistant(text_field(record, "completion"))]}

    def _label(self, record: dict, view: str) -> dict | None:
        """One row in a view; None below least_p."""
        prompt = typed_field(record, "prompt", list)
        row = {"prompt": prompt, "chosen": _reply(record, "chosen"), "rejected": _reply(record, "rejected")}
        p_chosen = typed_field(record, "p_chosen", int, float)
        if not 0.5 <= p_chosen <= 1:
            raise BadRow("p_chosen is outside [0.5, 1]")
        if view != "preferences":
            return next(schema.pair_as(view, row))
        if p_chosen < self.least_p:
            return None
        margin = {}
        if self.margin_scale is not None:
            margin = {"margin": self.margin_scale * float(typed_field(record, "margin", int, float))}
        return {**row, "p_chosen": float(p_chosen), **margin}


def _reply(record: dict, name: str) -> list:
    """One assistant turn, which may be empty, since policies write such. Raises BadRow for anything else."""
    turns = typed_field(record, name, list)
    if len(turns) != 1 or not isinstance(turns[0], dict) or turns[0].get("role") != "assistant":
        raise BadRow(f"wrong type: {name} is no assistant's turn")
    return [schema.assistant(typed_field(turns[0], "content", str))]
