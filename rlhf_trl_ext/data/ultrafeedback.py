"""UltraFeedback binarized (arXiv:2310.01377): two replies to a prompt with a score each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_trl_ext.data.schema import BadRow, NoRow, Row, assistant, pair, pair_as, text_field, typed_field, user


@dataclass(frozen=True)
class UltraFeedback:
    """chosen and rejected are whole conversations (lists of turns) with score_chosen and score_rejected beside them,
    as in trl-lib/ultrafeedback_binarized and HuggingFaceH4/ultrafeedback_binarized; or they are the replies' text
    beside a prompt's text, with the scores beside them or in "metadata".

    Equal scores make no preference; such records still give demonstrations and prompts.
    """

    def rows(self, record: dict, view: str) -> Iterator[Row]:
        """The record's one row. Raises NoRow for a tie in preferences, BadRow for a malformed record in any view."""
        row = pair(_turns(record, "chosen"), _turns(record, "rejected"))
        chosen, rejected = _score(record, "score_chosen"), _score(record, "score_rejected")
        if chosen < rejected:
            raise BadRow("score_chosen < score_rejected")
        if view == "preferences" and chosen == rejected:
            raise NoRow("score ties")
        return pair_as(view, row)


def _turns(record: dict, name: str) -> list:
    reply = typed_field(record, name, str, list)
    if isinstance(reply, list):
        return reply
    return [user(text_field(record, "prompt")), assistant(text_field(record, name))]


def _score(record: dict, name: str) -> float:
    holder = record if record.get(name) is not None else record.get("metadata") or record
    score = typed_field(holder, name, int, float)
    if not math.isfinite(score):
        raise BadRow(f"wrong type: {name} is not finite")
    return score
