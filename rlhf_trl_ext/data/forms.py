"""Forms of anyone's own rows: what TRL, OpenAI, ShareGPT, Alpaca, Argilla, OpenRLHF, verl and LLaMA-Factory write.

A form is recognised by the fields of a record. Every form reads a record into `views`, view -> row; a preference is
also a demonstration (its chosen reply) and a prompt.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from rlhf_trl_ext.data.hh import transcript
from rlhf_trl_ext.data.schema import BadRow, NoRow, Row, assistant, conversation, pair, text_field, typed_field
from rlhf_trl_ext.data.turns import PROMPTS, REPLIES, ROLES, joined, pair_of_texts, prompt_of, turns

# What a label, an answer to check against and scores are called.
LABELS = ("label", "kto_tag")
SOLUTIONS = ("solution", "ground_truth", "answer")
SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)


def _preference(record: dict) -> dict[str, Row]:
    chosen, rejected = record["chosen"], record["rejected"]
    if any(record.get(name) for name in PROMPTS):
        prompt = prompt_of(record)
        row = pair(joined(prompt, chosen), joined(prompt, rejected))
    elif isinstance(chosen, str) and isinstance(rejected, str):
        row = pair(*pair_of_texts(chosen, rejected))
    else:
        row = pair(turns(chosen, "assistant"), turns(rejected, "assistant"))
    return {"preferences": row, "tie": _ties(record)}


def _ties(record: dict) -> bool:
    """Whether scores stand beside the replies and are equal. Raises BadRow where the rejected one has the higher."""
    for names in SCORES:
        for holder in (record, record.get("metadata") or {}):
            scores = [holder.get(name) for name in names] if isinstance(holder, dict) else [None]
            if None in scores:
                continue
            for name, score in zip(names, scores, strict=True):
                if not math.isfinite(typed_field({name: score}, name, int, float)):
                    raise BadRow(f"wrong type: {name} is not finite")
            if scores[0] < scores[1]:
                raise BadRow(f"{names[0]} < {names[1]}")
            return scores[0] == scores[1]
    return False


def _openai(record: dict) -> dict[str, Row]:
    request = typed_field(record, "input", dict)
    pairs = {"chosen": record["preferred_output"], "rejected": record["non_preferred_output"]}
    return _preference({"messages": typed_field(request, "messages", list), **pairs})


def _argilla(record: dict) -> dict[str, Row]:
    return _preference({**record, "chosen": record["chosen_response"], "rejected": record["rejected_response"]})


def _scored(record: dict) -> dict[str, Row]:
    """The best scored reply against the worst; replies and scores side by side, or replies that hold theirs."""
    if "completions" in record:
        replies = [text_field(reply, "response") for reply in typed_field(record, "completions", list)]
        scores = [reply.get("overall_score", reply.get("fine-grained_score")) for reply in record["completions"]]
    else:
        replies, scores = typed_field(record, "generations", list), typed_field(record, "ratings", list)
    rated = [(s, r) for s, r in zip(scores, replies, strict=True) if isinstance(s, int | float) and math.isfinite(s)]
    if len(rated) < 2:
        raise NoRow("records with fewer than two scored replies")
    (worst, rejected), (best, chosen) = min(rated, key=lambda x: x[0]), max(rated, key=lambda x: x[0])
    if best == worst:
        raise NoRow("score ties")
    names = {name: record[name] for name in PROMPTS if name in record}
    return _preference({**names, "chosen": chosen, "rejected": rejected})


def _unpaired(record: dict) -> dict[str, Row]:
    label = next(record[name] for name in LABELS if name in record)
    label = {"true": True, "1": True, "false": False, "0": False}.get(str(label).strip().lower())
    if label is None:
        raise BadRow("a label that is neither true nor false")
    if "text" in record and not any(record.get(name) for name in PROMPTS):
        return {"text": {"text": text_field(record, "text")}} if label else {}
    reply = next((record[name] for name in REPLIES if record.get(name)), None)
    whole = conversation(prompt_of(record) if reply is None else joined(prompt_of(record), reply))
    row = {"prompt": whole[:-1], "completion": whole[-1:]}
    return {"unpaired": {**row, "label": label}} | ({"demonstrations": row} if label else {})


def _demonstration(record: dict) -> dict[str, Row]:
    reply = next((record[name] for name in REPLIES if record.get(name)), None)
    whole = prompt_of(record) if reply is None else joined(prompt_of(record), reply)
    if whole[-1]["role"] == "user":
        return {"prompts": {"prompt": whole}}
    whole = conversation(whole)
    return {"demonstrations": {"prompt": whole[:-1], "completion": whole[-1:]}}


def _solved(record: dict) -> dict[str, Row]:
    """A question with the answer to check against: verl's ground truth, GSM8K's number after ####, or a column."""
    checked = record.get("reward_model")
    answer = checked.get("ground_truth") if isinstance(checked, dict) else None
    answer = (
        next((record[name] for name in SOLUTIONS if record.get(name) is not None), None) if answer is None else answer
    )
    if answer is None:
        raise BadRow("no answer to check against")
    prompt, text = prompt_of(record), str(answer)
    rows = {"prompts": {"prompt": prompt, "solution": text.rpartition("####")[2].strip()}}
    if "####" in text:
        rows["demonstrations"] = {"prompt": prompt, "completion": [assistant(text)]}
    return rows


def _text(record: dict) -> dict[str, Row]:
    text = text_field(record, "text")
    if text.lstrip().startswith("Human:"):
        whole = conversation(transcript(text))
        return {"demonstrations": {"prompt": whole[:-1], "completion": whole[-1:]}}
    return {"text": {"text": text}}


def _stepwise(record: dict) -> dict[str, Row]:
    raise ValueError("rows with a label for every step train a process reward model, which no algorithm here does.")


PAIRS = ("preferences", "unpaired", "demonstrations", "prompts")
SINGLES = ("demonstrations", "prompts")


class Form(NamedTuple):
    """name: as in `dataset.form=`. fields: that a record must have, alternatives in tuples. read: record -> rows.

    views: those that records of this form can have a row in.
    """

    name: str
    fields: tuple[str | tuple[str, ...], ...]
    read: Callable[[dict], dict[str, Row]]
    views: tuple[str, ...] = SINGLES

    def fits(self, record: dict) -> bool:
        """Whether the record has the fields."""
        fields = [(field,) if isinstance(field, str) else field for field in self.fields]
        return all(any(record.get(name) is not None for name in names) for names in fields)


# The first that fits is taken.
FORMS = (
    Form("stepwise", ("completions", "labels"), _stepwise, PAIRS),
    Form("openai_preference", ("input", "preferred_output", "non_preferred_output"), _openai, PAIRS),
    Form("preference", ("chosen", "rejected"), _preference, PAIRS),
    Form("argilla", ("chosen_response", "rejected_response"), _argilla, PAIRS),
    Form("scored", (PROMPTS, "completions"), _scored, PAIRS),
    Form("scored", (PROMPTS, "generations", "ratings"), _scored, PAIRS),
    Form("unpaired", (LABELS, (*PROMPTS, "text")), _unpaired, ("unpaired", *SINGLES)),
    Form("verl", (PROMPTS, "reward_model"), _solved, ("prompts",)),
    Form("solved", (PROMPTS, ("solution", "ground_truth")), _solved, ("prompts",)),
    Form("gsm8k", ("question", "answer"), _solved),
    Form("messages", ("messages",), _demonstration),
    Form("sharegpt", ("conversations",), _demonstration),
    Form("alpaca", ("instruction", "output"), _demonstration),
    Form("completion", (PROMPTS, REPLIES), _demonstration),
    Form("prompts", (PROMPTS,), _demonstration, ("prompts",)),
    Form("text", ("text",), _text),
)
NAMES = tuple(dict.fromkeys(form.name for form in FORMS))


HINT = "name the columns, as in 'dataset.columns={prompt: question, chosen: good, rejected: bad}'"


class Forms:
    """Converts records of any form in `FORMS` (a source of `Corpus`).

    form: its name; None recognises it by the fields of the first record, and every record must have it.
    columns: our name -> the column's, for files with names of their own: {prompt: question, chosen: good,
    rejected: bad}; other columns are then not looked at. Our names are those of the forms: prompt, chosen, rejected,
    completion, messages, label, system, solution, text.
    """

    def __init__(self, form: str | None = None, columns: dict[str, str] | None = None):
        known = {*PROMPTS, *REPLIES, *LABELS, *SOLUTIONS, "chosen", "rejected", "system", "text", "input", "history"}
        if form is not None and form not in NAMES:
            raise ValueError(f"form={form}: allowed are {', '.join(NAMES)}.")
        if unknown := sorted(set(columns or {}) - known):
            raise ValueError(f"columns.{unknown[0]}: no such name; allowed are {', '.join(sorted(known))}.")
        self.form, self.columns = form, columns
        self.recognised: Form | None = None

    def rows(self, record: dict, view: str) -> Iterator[Row]:
        """The record's row in a view. Raises BadRow, NoRow, and ValueError where no form has the record's fields."""
        form = self._form(record)
        if view not in form.views:
            raise ValueError(
                f"form={form.name}, as the columns {', '.join(map(str, record))} were read, has no {view}, only "
                f"{', '.join(form.views)}: {HINT}, or choose an algorithm that trains on what there is."
            )
        read = form.read(self._renamed(record))
        if read.pop("tie", False) and view == "preferences":
            raise NoRow("score ties")
        if (row := in_view(read, view)) is None:
            raise NoRow(f"{form.name} rows without {view}")
        yield row

    def _form(self, record: dict) -> Form:
        renamed = self._renamed(record)
        if self.recognised is None:
            fitting = [form for form in FORMS if self.form in (None, form.name) and form.fits(renamed)]
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
            return record
        if missing := [column for column in self.columns.values() if column not in record]:
            raise ValueError(f"columns: there is no column {missing[0]}; the file has {', '.join(map(str, record))}.")
        return {name: record[column] for name, column in self.columns.items()}


def advice(located: Iterable[tuple[str, Any]], view: str) -> str | None:
    """What to do with records that another source cannot read, where all are of one form; else None.

    located: (location, record), as `reading.local_records` gives them.
    """
    forms = Forms()
    try:
        for _, record in located:
            with contextlib.suppress(NoRow):
                list(forms.rows(record, forms._form(record).views[0]))
    except (BadRow, ValueError, AttributeError):  # the last: no object
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


def llama_factory(info: dict, name: str | None) -> tuple[str, dict[str, str] | None]:
    """(file name, our column -> theirs where it names any) of an entry of LLaMA-Factory's dataset_info.json.

    name: of the entry; may be None where there is one. Raises ValueError for one that is not there, is on a hub, or
    has roles of its own.
    """
    name = next(iter(info)) if name is None and len(info) == 1 else name
    if name not in info:
        raise ValueError(f"subset={name}: allowed are {', '.join(sorted(info))}, the entries of dataset_info.json.")
    entry = info[name]
    if "file_name" not in entry:
        raise ValueError(f"subset={name} of dataset_info.json names no file: give its hub data set as dataset.hub.")
    tags = {key: tag for key, tag in (entry.get("tags") or {}).items() if key.endswith(("user_tag", "assistant_tag"))}
    if unknown := [tag for tag in tags.values() if tag not in ROLES]:
        raise ValueError(f"subset={name}: role {unknown[0]} is unknown; known are {', '.join(ROLES)}.")
    alpaca = {"instruction": "prompt", "input": "query", "output": "response"}
    ours = {"conversations": "messages"} if entry.get("formatting") == "sharegpt" else alpaca
    ours |= {key: key for key in ("chosen", "rejected", "kto_tag", "system", "history")}
    theirs = entry.get("columns") or {}
    columns = {our: theirs[key] for our, key in ours.items() if theirs.get(key)}
    return entry["file_name"], columns or None
