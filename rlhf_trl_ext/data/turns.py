"""Turns of a conversation out of the ways in which others write them: texts, messages, ShareGPT, parts, transcripts."""

import itertools
import re
from typing import Any

from rlhf_trl_ext.data import hh
from rlhf_trl_ext.data.schema import BadRow, Turn, assistant, text_field, typed_field, user

ROLES = dict.fromkeys(("user", "human", "prompter"), "user") | dict.fromkeys(("system", "developer"), "system")
ROLES |= dict.fromkeys(("assistant", "gpt", "bot", "ai", "chatgpt", "model"), "assistant")
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
# What a conversation, a prompt and a reply are called.
CONVERSATIONS = ("messages", "conversations", "conversation", "context_messages")
PROMPTS = ("prompt", "instruction", "question", "query", "problem", *CONVERSATIONS, "input")
REPLIES = ("completion", "response", "output", "answer")
# The end of a prompt with marks of its own, such as "User: ...\n\nBot:".
_OPENING = re.compile(r"(?:\A|\n)\s*#*\s*(?:assistant|ai|bot|gpt|model|response|answer|agent)\s*:\s*\Z", re.IGNORECASE)


def turns(value: Any, role: str) -> list[Turn]:
    """Text, a turn or a list of turns as turns with role and content; lone text has the role `role`.

    Turns are {role, content} or {from, value}; a content of parts is the text of its parts. Raises BadRow.
    """
    if isinstance(value, str):
        return [{"role": role, "content": text_field({role: value}, role)}]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise BadRow(f"wrong type: {role} is {type(value).__name__}")
    if not value:
        raise BadRow("no turns")
    return [read for turn in value if (read := _turn(turn)) is not None]


def _turn(turn: Any) -> Turn | None:
    """One turn; None for a system turn without text, which several data sets begin with."""
    sharegpt = isinstance(turn, dict) and turn.get("from") is not None
    name = typed_field(turn, "from" if sharegpt else "role", str).strip().lower()
    if name in TOOL_ROLES or turn.get("tool_calls"):
        raise BadRow("turns of tools, which no algorithm here trains on")
    if name not in ROLES:
        raise BadRow(f"unknown role {name[:20]}")
    content = turn.get("value" if sharegpt else "content")
    if isinstance(content, list):
        if any(not isinstance(part, dict) or not isinstance(part.get("text"), str) for part in content):
            raise BadRow("a content with parts that are no text")
        content = "".join(part["text"] for part in content)
    if ROLES[name] == "system" and (content is None or not str(content).strip()):
        return None
    return {"role": ROLES[name], "content": text_field({"content": content}, "content")}


def retagged(value: Any, tags: dict[str, str]) -> Any:
    """Turns under LLaMA-Factory's `tags` as {from, value} with its default roles; what is no turn stays as it is.

    tags: role_tag and content_tag name the two fields, user_tag, assistant_tag ... the roles.
    """
    if isinstance(value, list):
        return [retagged(item, tags) for item in value]
    role, content = tags.get("role_tag", "from"), tags.get("content_tag", "value")
    if not isinstance(value, dict) or role not in value or content not in value:
        return value
    ours = {"user_tag": "human", "assistant_tag": "gpt", "system_tag": "system", "function_tag": "function_call"}
    named = {tags[tag]: name for tag, name in (ours | {"observation_tag": "observation"}).items() if tag in tags}
    return {"from": named.get(value[role], value[role]), "value": value[content]}


def prompt_of(record: dict) -> list[Turn]:
    """The turns before the reply: Alpaca's input below its instruction, a system text before them."""
    name = next((name for name in PROMPTS if record.get(name)), None)
    if name is None:
        raise BadRow("no prompt")
    value = record[name]
    if isinstance(value, str) and name in CONVERSATIONS:
        raise BadRow(f"wrong type: {name} is str")
    if isinstance(value, str) and name != "input" and record.get("input") and isinstance(record["input"], str):
        value = f"{value}\n\n{record['input']}"
    prompt = _history(record.get("history")) + (hh.opening(value) if is_transcript(value) else turns(value, "user"))
    if not prompt:
        raise BadRow("no prompt")
    system = next((record[name] for name in ("system", "system_prompt") if record.get(name)), None)
    return [{"role": "system", "content": system}, *prompt] if system and prompt[0]["role"] != "system" else prompt


def _history(value: Any) -> list[Turn]:
    """Earlier turns: Alpaca's pairs of texts, or turns."""
    if not value:
        return []
    if isinstance(value, list) and all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
        pairs = ((text_field({"history": a}, "history"), text_field({"history": b}, "history")) for a, b in value)
        return [turn for question, reply in pairs for turn in (user(question), assistant(reply))]
    if isinstance(value, str):
        raise BadRow("wrong type: history is str")
    return turns(value, "history")


def joined(prompt: list[Turn], value: Any) -> list[Turn]:
    """Prompt and reply as one conversation; a reply that is the whole conversation already must repeat the prompt."""
    reply = hh.transcript(value) if is_transcript(value) else turns(value, "assistant")
    if len(reply) == 1:
        return [*prompt, *reply]
    start = [turn for turn in prompt if turn["role"] != "system"]
    own = [turn for turn in reply if turn["role"] != "system"]
    if own[: len(start)] != start and own[-2:-1] != start[-1:]:
        raise BadRow("the conversation does not hold the prompt beside it")
    return reply if reply[0]["role"] == "system" or prompt[0]["role"] != "system" else [prompt[0], *reply]


def is_transcript(value: Any) -> bool:
    """Whether a text is a transcript as HH writes it, which begins with a mark and has a turn of the user."""
    return isinstance(value, str) and bool(hh.BEGINS.match(value)) and bool(hh.HUMAN.search(value))


def pair_of_texts(chosen: str, rejected: str) -> tuple[list[Turn], list[Turn]]:
    """HH's transcripts, or two texts that begin with the same prompt, cut where a word begins.

    Raises BadRow for transcripts with other marks than HH's, which would all become one turn.
    """
    if is_transcript(chosen) or is_transcript(rejected):
        return hh.transcript(chosen), hh.transcript(rejected)
    shared = "".join(a for a, b in itertools.takewhile(lambda ab: ab[0] == ab[1], zip(chosen, rejected, strict=False)))
    shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    if not shared.strip():
        raise BadRow("no prompt, and the texts do not begin alike")
    if _OPENING.search(shared) or hh.HUMAN.search(shared):
        raise BadRow("a transcript that does not begin with Human: or has other marks than Human: and Assistant:")
    return tuple([user(shared.strip()), assistant(text[len(shared) :])] for text in (chosen, rejected))
