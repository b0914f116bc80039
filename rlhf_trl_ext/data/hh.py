"""Anthropic HH (arXiv:2204.05862): two transcripts that share everything but the assistant's last turn."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_trl_ext.data.schema import BadRow, Row, Turn, pair, pair_as, text_field

# A turn begins only after an empty line (or at the very start): "Human:" within a line belongs to the text. Models
# have written such lines into their replies; they are kept, since nothing tells them from a quotation.
_MARK = re.compile(r"(?:\A|\n\n)(Human|Assistant):(?=\s|\Z)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class HH:
    """{"chosen", "rejected"}, both "\\n\\nHuman: ...\\n\\nAssistant: ..." of any number of turns.

    The prompt is the shared turns; demonstrations take the chosen reply. A record whose transcripts part before the
    last turn is bad: its label belongs to the whole transcript, not to a turn.
    """

    def rows(self, record: dict, view: str) -> Iterator[Row]:
        """The record's one row. Raises BadRow for a malformed record, the same in every view."""
        row = pair(transcript(text_field(record, "chosen")), transcript(text_field(record, "rejected")))
        return pair_as(view, row)


def transcript(text: str) -> list[Turn]:
    """The turns of a transcript. Raises BadRow for text before the first."""
    before, *parts = _MARK.split(text)
    if before.strip() or not parts:
        raise BadRow("text before the first turn")
    return [
        {"role": _ROLES[name], "content": content.strip()}
        for name, content in zip(parts[::2], parts[1::2], strict=True)
    ]
