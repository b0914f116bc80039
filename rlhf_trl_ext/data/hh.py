"""Anthropic HH (arXiv:2204.05862): two transcripts that share everything but the assistant's last turn."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_trl_ext.data.schema import BadRow, Row, Turn, pair, pair_as, text_field

# A turn begins only after an empty line (or at the very start): "Human:" within a line belongs to the text. Models
# have written such lines into their replies; they are kept, since nothing tells them from a quotation.
_MARK = re.compile(r"(?:\A|\n\n)(Human|Assistant):(?=\s|\Z)")
_SYSTEM = re.compile(r"\A\s*System:(?=\s)(.*?)(?=\n\nHuman:)", re.DOTALL)
BEGINS = re.compile(r"\s*(?:Human|System):(?=\s|\Z)")
HUMAN = re.compile(r"(?:\A|\n\n)\s*Human:(?=\s|\Z)")
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
    """The turns of a transcript, which may begin with "System: ...". Raises BadRow for other text before the first."""
    system = _SYSTEM.match(text)
    before, *parts = _MARK.split(text[system.end() :] if system else text)
    if before.strip() or not parts:
        raise BadRow("text before the first turn")
    turns = [
        {"role": _ROLES[name], "content": content.strip()}
        for name, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return [{"role": "system", "content": system[1].strip()}, *turns] if system and system[1].strip() else turns


def opening(text: str) -> list[Turn]:
    """The turns of a transcript that may end with "Assistant:", where the reply begins."""
    turns = transcript(text)
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns
