"""Forms of anyone's own rows: what TRL, OpenAI, ShareGPT, Alpaca, Argilla, OpenRLHF, verl and LLaMA-Factory write.

A form is recognised by the fields of a record, and `records` reads it.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from rlhf_trl_ext.data.records import (
    LABELS,
    RATINGS,
    SOLUTIONS,
    argilla,
    demonstration,
    openai_preference,
    plain_text,
    preference,
    scored,
    solved,
    stepwise,
    unpaired,
)
from rlhf_trl_ext.data.schema import BadRow, NoRow, Row
from rlhf_trl_ext.data.turns import PROMPTS, REPLIES, retagged

# Columns whose content would be lost without a word.
UNREAD = ("tools", "images", "videos", "audios")
PAIRS = ("preferences", "unpaired", "demonstrations", "prompts")
SINGLES = ("demonstrations", "prompts")


class Form(NamedTuple):
    """name: as in `dataset.form=`. fields: that a record must have, alternatives in tuples. read: record -> rows.

    views: those that records of this form can have a row in. mark: what the first record must hold for the form to be
    recognised, beside the fields.
    """

    name: str
    fields: tuple[str | tuple[str, ...], ...]
    read: Callable[[dict], dict[str, Row]]
    views: tuple[str, ...] = SINGLES
    mark: Callable[[dict], bool] = lambda record: True

    def fits(self, record: dict) -> bool:
        """Whether the record has the fields."""
        fields = [(field,) if isinstance(field, str) else field for field in self.fields]
        return all(any(record.get(name) is not None for name in names) for names in fields)

    def names(self, record: dict) -> bool:
        """As `fits`, of the record that shows the form: where each field has one name, some may be empty there."""
        if any(isinstance(field, tuple) for field in self.fields):
            return self.fits(record)
        return set(self.fields) <= record.keys() and any(record[field] is not None for field in self.fields)


# The first that fits is taken.
FORMS = (
    Form("stepwise", ("completions", "labels"), stepwise, PAIRS),
    Form("openai_preference", ("input", "preferred_output", "non_preferred_output"), openai_preference, PAIRS),
    Form("preference", ("chosen", "rejected"), preference, PAIRS),
    Form("argilla", ("chosen_response", "rejected_response"), argilla, PAIRS),
    Form("scored", (PROMPTS, "completions"), scored, PAIRS),
    Form("scored", (PROMPTS, "generations", RATINGS), scored, PAIRS),
    Form("unpaired", (LABELS, (*PROMPTS, "text")), unpaired, ("unpaired", *SINGLES)),
    Form("verl", (PROMPTS, "reward_model"), solved, ("prompts",)),
    Form("solved", (PROMPTS, ("solution", "ground_truth")), solved, ("prompts",)),
    Form("gsm8k", ("question", "answer"), solved, mark=lambda record: "####" in str(record["answer"])),
    Form("messages", (("messages", "context_messages"),), demonstration),
    Form("sharegpt", (("conversations", "conversation"),), demonstration),
    Form("alpaca", ("instruction", "output"), demonstration),
    Form("completion", (PROMPTS, REPLIES), demonstration),
    Form("prompts", (PROMPTS,), demonstration, ("prompts",)),
    Form("text", ("text",), plain_text),
)
NAMES = tuple(dict.fromkeys(form.name for form in FORMS))


HINT = "name the columns, as in 'dataset.columns={prompt: question, chosen: good, rejected: bad}'"


class Forms:
    """Converts records of any form in `FORMS` (a source of `Corpus`).

    form: its name; None recognises it by the fields of the first record, and every record must have it.
    columns: our name -> the column's, for files with names of their own: {prompt: question, chosen: good,
    rejected: bad}; other columns are then not looked at. Our names are those of the forms: prompt, chosen, rejected,
    completion, messages, label, system, solution, text. Without it, case and space around names do not matter.
    tags: of LLaMA-Factory's dataset_info.json, see `retagged`; columns that it names may then be absent.
    """

    def __init__(
        self, form: str | None = None, columns: dict[str, str] | None = None, tags: dict[str, str] | None = None
    ):
        known = {*PROMPTS, *REPLIES, *LABELS, *SOLUTIONS, "chosen", "rejected", "system", "text", "input", "history"}
        if form is not None and form not in NAMES:
            raise ValueError(f"form={form}: allowed are {', '.join(NAMES)}.")
        if unknown := sorted(set(columns or {}) - known):
            raise ValueError(f"columns.{unknown[0]}: no such name; allowed are {', '.join(sorted(known))}.")
        self.form, self.columns, self.tags = form, columns, tags
        self.recognised: Form | None = None

    def rows(self, record: dict, view: str) -> Iterator[Row]:
        """The record's row in a view. Raises BadRow, NoRow, and ValueError where no form has the record's fields."""
        form = self._form(record)
        if view not in form.views:
            raise ValueError(
                f"form={form.name}, as the columns {', '.join(map(str, record))} were read, has no {view}, only "
                f"{', '.join(form.views)}: {HINT}, or choose an algorithm that trains on what there is."
            )
        renamed = self._renamed(record)
        if lost := next((name for name in UNREAD if renamed.get(name) not in (None, "", "[]", [])), None):
            raise BadRow(f"{lost} beside the text, which no algorithm here reads")
        read = form.read(renamed)
        if read.pop("tie", False) and view == "preferences":
            raise NoRow("score ties")
        if (row := in_view(read, view)) is None:
            raise NoRow(f"{form.name} rows without {view}")
        yield row

    def _form(self, record: dict) -> Form:
        renamed = self._renamed(record)
        if self.recognised is None:
            fitting = [form for form in FORMS if self.form in (None, form.name) and form.names(renamed)]
            fitting = fitting if self.form else [form for form in fitting if form.mark(renamed)]
            if not fitting and self.form is not None:
                raise BadRow(missing(renamed, next(form for form in FORMS if form.name == self.form)))
            if not fitting:
                raise ValueError(f"columns {', '.join(map(str, record))}: no form of rows is recognised; {HINT}.")
            self.recognised = fitting[0]
        if not self.recognised.fits(renamed):
            raise BadRow(missing(renamed, self.recognised))
        return self.recognised

    def _renamed(self, record: dict) -> dict:
        if self.columns is None:
            plain = {str(name).strip().lower(): value for name, value in record.items()}
            record = plain if len(plain) == len(record) else record
        else:
            absent = [column for column in self.columns.values() if column not in record]
            if absent and self.recognised is not None and self.tags is None:
                raise BadRow(f"missing field {absent[0]}")
            if absent and self.tags is None:
                raise ValueError(
                    f"columns: there is no column {absent[0]}; the file has {', '.join(map(str, record))}."
                )
            record = {name: record.get(column) for name, column in self.columns.items()}
        return {name: retagged(value, self.tags) for name, value in record.items()} if self.tags else record


def advice(located: Iterable[tuple[str, Any]], view: str) -> str | None:
    """What to do with records that another source cannot read, where all are of one form; else None.

    located: (location, record), as `reading.local_records` gives them.
    """
    forms = Forms()
    try:
        for _, record in located:
            with contextlib.suppress(NoRow):
                list(forms.rows(record, forms._form(record).views[0]))
    except (ValueError, AttributeError):  # the last: no object
        return None
    if forms.recognised is None:
        return None
    if view in forms.recognised.views:
        return f"these rows have the form {forms.recognised.name}: give dataset=file, which reads it"
    return (
        f"these rows have the form {forms.recognised.name}, which dataset=file reads, but it has no {view}, only "
        f"{', '.join(forms.recognised.views)}: choose an algorithm that trains on them"
    )


def missing(record: dict, form: Form) -> str:
    """Which field of a form a record lacks, in words."""
    fields = [(field,) if isinstance(field, str) else field for field in form.fields]
    names = next(names for names in fields if all(record.get(name) is None for name in names))
    return f"missing field {' or '.join(names)}"


def in_view(read: dict[str, Row], view: str) -> Row | None:
    """A view's row out of what a form read: itself, or what follows from a preference, demonstration or label."""
    if view in read:
        return read[view]
    if view == "demonstrations" and "preferences" in read:
        return {"prompt": read["preferences"]["prompt"], "completion": read["preferences"]["chosen"]}
    if view == "demonstrations" and "text" in read:
        return read["text"]
    if view == "unpaired":
        return read.get("preferences")
    if view == "prompts":
        return next(({"prompt": row["prompt"]} for row in read.values() if "prompt" in row), None)
    return None
