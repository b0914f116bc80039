"""Turns of a conversation out of the ways in which others write them: texts, messages, ShareGPT, parts, transcripts."""

import itertools
from typing import Any

from rlhf_trl_ext.data import hh
from rlhf_trl_ext.data.schema import BadRow, Turn, assistant, text_field, typed_field, user

ROLES = {"user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant"}
ROLES |= {"bot": "assistant", "chatgpt": "assistant", "model": "assistant", "system": "system", "developer": "system"}
# What a prompt and a reply are called.
PROMPTS = ("prompt", "instruction", "question", "query", "messages", "conversations")
REPLIES = ("completion", "response", "output", "answer")


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
    return [_turn(turn) for turn in value]


def _turn(turn: Any) -> Turn:
    sharegpt = isinstance(turn, dict) and "from" in turn
    role = typed_field(turn, "from" if sharegpt else "role", str)
    if role not in ROLES:
        raise BadRow("unknown role")
    content = turn.get("value" if sharegpt else "content")
    if isinstance(content, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise BadRow("a content with parts that are no text")
        content = "".join(part["text"] for part in content)
    return {"role": ROLES[role], "content": text_field({"content": content}, "content")}


def prompt_of(record: dict) -> list[Turn]:
    """The turns before the reply: Alpaca's input below its instruction, a system text before them."""
    value = next((record[name] for name in PROMPTS if record.get(name)), None)
    if value is None:
        raise BadRow("no prompt")
    if isinstance(value, str) and record.get("input") and isinstance(record["input"], str):
        value = f"{value}\n\n{record['input']}"
    before = []
    for question, reply in record.get("history") or ():
        before += [user(question), assistant(reply)]
    prompt = before + turns(value, "user")
    system = next((record[name] for name in ("system", "system_prompt") if record.get(name)), None)
    return [{"role": "system", "content": system}, *prompt] if system and prompt[0]["role"] != "system" else prompt


def joined(prompt: list[Turn], value: Any) -> list[Turn]:
    """Prompt and reply as one conversation; a reply that is the whole conversation already must repeat the prompt."""
    reply = turns(value, "assistant")
    if len(reply) == 1:
        return [*prompt, *reply]
    start = [turn for turn in prompt if turn["role"] != "system"]
    own = [turn for turn in reply if turn["role"] != "system"]
    if own[: len(start)] != start and own[-2:-1] != start[-1:]:
        raise BadRow("the conversation does not hold the prompt beside it")
    return reply if reply[0]["role"] == "system" or prompt[0]["role"] != "system" else [prompt[0], *reply]


def pair_of_texts(chosen: str, rejected: str) -> tuple[list[Turn], list[Turn]]:
    """HH's transcripts, or two texts that begin with the same prompt, cut where a word begins."""
    if chosen.lstrip().startswith(("Human:", "Assistant:")):
        return hh.transcript(chosen), hh.transcript(rejected)
    shared = "".join(a for a, b in itertools.takewhile(lambda ab: ab[0] == ab[1], zip(chosen, rejected, strict=False)))
    shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    if not shared.strip():
        raise BadRow("no prompt, and the texts do not begin alike")
    return tuple([user(shared.strip()), assistant(text[len(shared) :])] for text in (chosen, rejected))
