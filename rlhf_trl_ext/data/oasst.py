"""OpenAssistant message trees (arXiv:2304.07327): a prompt, ranked replies, their follow-ups, and so on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from rlhf_trl_ext.data.schema import BadRow, NoRow, Row, Turn, assistant, pair, text_field, typed_field, user

_TURNS = {"prompter": user, "assistant": assistant}
_OTHER = {"prompter": "assistant", "assistant": "prompter"}


@dataclass(frozen=True)
class Message:
    """A message that counts, with its replies that count. rank: 0 is the best of its siblings, None is unranked."""

    turn: Turn
    rank: int | None
    replies: list["Message"]


@dataclass(frozen=True)
class OASST:
    """{"tree_state", "prompt": {"text", "role", "lang", "rank", "deleted", "review_result", "replies": [...]}}.

    lang: language to keep, such as en, or None for all. Messages that are deleted, failed review (review_result false)
    or are in another language are passed over together with everything below them.

    Preferences: at every prompt the best ranked reply against each worse ranked one. That is one pair less than there
    are ranked replies, where all pairs would let the few prompts with many replies dominate.
    Demonstrations: every assistant turn of the best path, which follows the best ranked reply (or the only one) and
    the best ranked follow-up, or the first where follow-ups are unranked.
    Prompts: every prompter's message with the turns above it.
    """

    lang: str | None = None

    def rows(self, record: dict, view: str) -> Iterator[Row]:
        """The tree's rows. Raises BadRow if any message that counts is malformed, NoRow if there is nothing to give."""
        if record.get("tree_state") not in (None, "ready_for_export"):
            raise NoRow("trees not ready for export")
        prompt = typed_field(record, "prompt", dict)
        if typed_field(prompt, "role", str) == "assistant":
            raise BadRow("first turn is not the user's")
        root = self._message(prompt, "prompter")
        if root is None:
            raise NoRow("trees deleted, rejected or in another language")
        views: dict[str, Callable] = {"preferences": _pairs, "demonstrations": _best_path, "prompts": _prompts}
        rows = list(views[view]([], root))
        if not rows:
            raise NoRow(f"trees without {view}")
        return iter(rows)

    def _message(self, record: dict, role: str) -> Message | None:
        """The message with all below it, or None if it does not count."""
        actual = typed_field(record, "role", str)
        if record.get("deleted") or record.get("review_result") is False:
            return None
        if self.lang is not None and typed_field(record, "lang", str) != self.lang:
            return None
        if actual not in _TURNS:
            raise BadRow("unknown role")
        if actual != role:
            raise BadRow("two roles in a row")
        turn = _TURNS[role](text_field(record, "text"))
        rank = None if record.get("rank") is None else typed_field(record, "rank", int)
        replies = [] if record.get("replies") is None else typed_field(record, "replies", list)
        counted = map(partial(self._message, role=_OTHER[role]), replies)
        return Message(turn, rank, [reply for reply in counted if reply is not None])


def _ranked(messages: list[Message]) -> list[Message]:
    """The ranked ones, best first."""
    return sorted((m for m in messages if m.rank is not None), key=lambda message: message.rank)


def _prompters(above: list[Turn], message: Message) -> Iterator[tuple[list[Turn], Message]]:
    """(turns up to and with the message, message) for the prompter's message and every prompter's below it."""
    prompt = [*above, message.turn]
    yield prompt, message
    for reply in message.replies:
        for follow_up in reply.replies:
            yield from _prompters([*prompt, reply.turn], follow_up)


def _pairs(above: list[Turn], root: Message) -> Iterator[Row]:
    for prompt, message in _prompters(above, root):
        ranked = _ranked(message.replies)
        for worse in ranked[1:]:
            if worse.rank > ranked[0].rank:
                yield pair([*prompt, ranked[0].turn], [*prompt, worse.turn])


def _best_path(above: list[Turn], message: Message | None) -> Iterator[Row]:
    while message is not None:
        prompt = [*above, message.turn]
        only = message.replies if len(message.replies) == 1 else []
        best = next(iter(_ranked(message.replies) or only), None)
        if best is None:
            return
        yield {"prompt": prompt, "completion": [best.turn]}
        above = [*prompt, best.turn]
        message = next(iter(_ranked(best.replies) or best.replies), None)


def _prompts(above: list[Turn], root: Message) -> Iterator[Row]:
    for prompt, _ in _prompters(above, root):
        yield {"prompt": prompt}
