"""What is in a data set: rows, lengths, equal and nearly equal replies, what is left out and why, and a few rows."""

import difflib
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)
NEARLY = 0.95  # similarity of two replies, by `difflib`, from which they count as nearly equal
COMPARED = 1000  # rows whose replies are compared
COLOURS = {"system": "magenta", "user": "cyan", "assistant": "green"}
PERCENTILES = (5, 50, 95, 100)


def load(dataset: Any, view: str | None, split: str, tokenizer: Any) -> tuple[str, Any]:
    """The view and its rows; None: preferences, or where the rows' form has none the first view that it has."""
    try:
        return view or "preferences", dataset.load(view or "preferences", split, tokenizer)
    except ValueError as error:
        form = getattr(getattr(dataset, "convert", None), "recognised", None)
        if view is not None or form is None or "preferences" in form.views:
            raise
        logger.warning("%s", error)
    return form.views[0], dataset.load(form.views[0], split, tokenizer)


def summary(rows: Any, tokenizer: Any = None) -> dict:
    """Facts of a `Dataset` of one view.

    Returns `rows`, `columns`, `lengths` (part -> characters, or tokens of the tokenizer's chat template, at
    percentiles 5, 50, 95 and 100), `nearly_equal` (share of the first 1,000 pairs whose replies are similar by
    `difflib.SequenceMatcher.ratio` >= 0.95; None without pairs), `repeated` (share of the replies that begin with the
    whole prompt, which a model would then learn to repeat), `turns` (most of a prompt), `system` (share of prompts with
    a system turn).
    """
    columns = [name for name in rows.column_names if name in ("prompt", "completion", "chosen", "rejected", "text")]
    lengths = {name: [_length(value, name, tokenizer) for value in rows[name]] for name in columns}
    facts = {"rows": len(rows), "columns": rows.column_names, "unit": "characters" if tokenizer is None else "tokens"}
    facts["lengths"] = {name: np.percentile(counts, PERCENTILES).round().tolist() for name, counts in lengths.items()}
    facts["nearly_equal"] = None
    if "chosen" in columns:
        pairs = zip(rows["chosen"][:COMPARED], rows["rejected"][:COMPARED], strict=True)
        facts["nearly_equal"] = float(np.mean([_similar(_text(a), _text(b)) for a, b in pairs]))
    if "prompt" in columns:
        prompts = rows["prompt"][:]
        asked = [prompt[-1]["content"].strip() for prompt in prompts]
        replies = rows["chosen" if "chosen" in columns else "completion"] if len(columns) > 1 else []
        begins = [_text(reply).strip().startswith(text) for reply, text in zip(replies, asked, strict=False)]
        facts["repeated"] = float(np.mean(begins)) if begins else None
        facts["turns"] = max(map(len, prompts))
        facts["system"] = float(np.mean([prompt[0]["role"] == "system" for prompt in prompts]))
    return facts


def show(train: Any, held_out: Any, view: str, tokenizer: Any, count: int) -> None:
    """Log what a stage is about to train on in one line, and print its first `count` rows as the model reads them.

    train, held_out: `Dataset`s; held_out may be None. Lengths are of the first 1,000 rows.
    """
    from rich.console import Console

    facts = summary(train.select(range(min(COMPARED, len(train)))), tokenizer)
    lengths = [
        f"{name} {numbers[1]:.0f} (longest {numbers[-1]:.0f}) {facts['unit']}"
        for name, numbers in facts["lengths"].items()
    ]
    if (facts.get("repeated") or 0) > 0.5:
        logger.warning(
            "%.0f %% of the replies begin with the whole prompt: give replies alone", 100 * facts["repeated"]
        )
    evaluated = "" if held_out is None else f", {len(held_out):,} held out to evaluate"
    logger.info("%s rows of %s to train%s; median %s", f"{len(train):,}", view, evaluated, ", ".join(lengths))
    console = Console()
    console.width = max(console.width, 100)  # a log file has no width of its own
    console.print(*rendered(train.select(range(min(count, len(train)))), tokenizer), sep="\n")


def _text(turns: str | list[dict]) -> str:
    return turns if isinstance(turns, str) else "\n".join(turn["content"] for turn in turns)


def _length(value: str | list[dict], name: str, tokenizer: Any) -> int:
    if tokenizer is None:
        return len(_text(value))
    text = _text(value)
    if name == "prompt":
        text = tokenizer.apply_chat_template(value, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _similar(one: str, other: str) -> bool:
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return matcher.real_quick_ratio() >= NEARLY and matcher.quick_ratio() >= NEARLY and matcher.ratio() >= NEARLY


def rendered(rows: Iterable[dict], tokenizer: Any = None, width: int = 1200):
    """Rows as `rich` panels: roles coloured, then the text as the model is shown it where the tokenizer has a template.

    width: characters of a part after which it is cut for the screen.
    """
    from rich.panel import Panel
    from rich.text import Text

    for number, row in enumerate(rows, start=1):
        panel = Text()
        for column, value in row.items():
            if isinstance(value, list):
                for turn in value:
                    label = turn["role"] if column == "prompt" else column
                    panel.append(f"{label}: ", style=f"bold {COLOURS.get(turn['role'], 'white')}")
                    panel.append(_cut(turn["content"], width) + "\n", style=COLOURS.get(turn["role"], "white"))
            elif value is not None:
                panel.append(f"{column}: ", style="bold")
                panel.append(f"{_cut(str(value), width)}\n")
        if getattr(tokenizer, "chat_template", None) and isinstance(row.get("prompt"), list):
            text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
            panel.append("as the model reads the prompt: ", style="bold")
            panel.append(repr(_cut(text, width)), style="dim")
        yield Panel(panel, title=f"row {number}", title_align="left")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[:width]} ... ({len(text):,} characters)"
