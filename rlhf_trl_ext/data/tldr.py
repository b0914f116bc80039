"""Reddit TL;DR (arXiv:2009.01325): posts with their author's summary, and comparisons of two summaries."""

from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_trl_ext.data.schema import BadRow, NoRow, Row, Turn, assistant, conversation, pair, text_field, user


@dataclass(frozen=True)
class TLDR:
    """A post is "SUBREDDIT: ... TITLE: ... POST: ... TL;DR:" and stays as it is: its end asks for the summary.

    Three forms: {"query", "reference", "response"} with "preferred" ("ours" is the response) where it was judged;
    {"prompt", "completion"} as in trl-lib/tldr; {"prompt", "chosen", "rejected"} as in trl-lib/tldr-preference, whose
    chosen summary is no demonstration, since a model wrote most of them.
    """

    def rows(self, record: dict, view: str) -> Iterator[Row]:
        """The record's row, if its form has one in this view (else NoRow). Raises BadRow for a malformed record."""
        if record.get("query") is not None:
            rows = _judged(record)
        elif record.get("completion") is not None:
            post, summary = _turn(record, "prompt", user), _turn(record, "completion", assistant)
            rows = {"demonstrations": _demonstration(post, summary)}
        else:
            post = _turn(record, "prompt", user)
            chosen, rejected = _turn(record, "chosen", assistant), _turn(record, "rejected", assistant)
            rows = {"preferences": pair([post, chosen], [post, rejected])}
        if view == "prompts":
            yield {"prompt": next(iter(rows.values()))["prompt"]}
        elif view in rows:
            yield rows[view]
        else:
            raise NoRow("posts without comparison" if view == "preferences" else "comparisons without reference")


def _turn(record: dict, name: str, turn) -> Turn:
    return turn(text_field(record, name).strip())


def _demonstration(post: Turn, summary: Turn) -> Row:
    prompt, completion = conversation([post, summary])
    return {"prompt": [prompt], "completion": [completion]}


def _judged(record: dict) -> dict[str, Row]:
    post, reference = _turn(record, "query", user), _turn(record, "reference", assistant)
    rows = {"demonstrations": _demonstration(post, reference)}
    preferred = record.get("preferred")
    if preferred not in (None, "ours", "reference"):
        raise BadRow("preferred is neither ours nor reference")
    if preferred is not None:
        response = _turn(record, "response", assistant)
        better, worse = (response, reference) if preferred == "ours" else (reference, response)
        rows["preferences"] = pair([post, better], [post, worse])
    return rows
