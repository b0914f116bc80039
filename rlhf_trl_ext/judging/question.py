"""One question to a chat model and its answer."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import ClassVar

from rlhf_trl_ext.judging.request import Form

THOUGHT_STARTS, THOUGHT_ENDS = r"\s*<(think|thinking|reasoning)>", r"</(think|thinking|reasoning)>"


@dataclass(frozen=True)
class Question:
    """Messages in OpenAI's form and the sampling settings; top_logprobs > 0 asks for that many of the verdict's token.

    sample: number of the answer where several are drawn at the same question; it is not sent.
    """

    path: ClassVar[str] = "/chat/completions"

    messages: tuple[dict, ...]
    max_tokens: int
    temperature: float = 0.0
    top_logprobs: int = 0
    sample: int = 0

    def key(self, model: str, base_url: str | None, options: dict) -> str:
        """SHA-256 of everything that decides the answer."""
        own = {name: value for name, value in vars(self).items() if value or name != "sample"}
        decides = json.dumps([model, base_url, options, own], sort_keys=True)
        return hashlib.sha256(decides.encode()).hexdigest()

    @property
    def most_prompt_tokens(self) -> int:
        """No tokenizer makes more tokens of a text than it has bytes; 16 a message for the chat format."""
        return sum(len(json.dumps(m, ensure_ascii=False).encode()) + 16 for m in self.messages) + 16

    @property
    def likely_prompt_tokens(self) -> int:
        """About 4 characters a token, as English text has, and 8 tokens a message for the chat format."""
        return sum(math.ceil(len(m["content"]) / 4) + 8 for m in self.messages)

    def body(self, model: str, form: Form | None = None) -> dict:
        """The request as OpenAI's chat endpoint takes it, in the form that this endpoint wants."""
        form = form or Form()
        return form.body(model, list(self.messages), self.max_tokens, self.temperature, self.top_logprobs)

    def read(self, response, model: str = "") -> "Answer":
        """The answer in the response as JSON. Raises Unusable."""
        return read(response, model)


@dataclass(frozen=True)
class Answer:
    """text, without thinking; the model that the endpoint says answered, or was asked.

    logprobs: `[{token: log-probability}]` of the token that holds the verdict, None where the endpoint gave none.
    problem: why there is no verdict in it: the endpoint's words for refusing, or log-probabilities that are none.
    """

    text: str
    model: str
    logprobs: list[dict[str, float]] | None = None
    problem: str | None = None


class Unusable(Exception):
    """A response that holds no answer; another attempt may."""


class Refused(Exception):
    """The endpoint's own words for not answering this question."""


class OutOfTokens(Exception):
    """The model thought until its tokens were used up, and gave no answer."""


def read(response, model: str = "") -> Answer:
    """The answer in a chat completion as JSON; model: that was asked, where the response names none.

    Raises Unusable for garbage and for no choices, Refused for an error in the body, OutOfTokens.
    """
    if isinstance(response, dict) and isinstance(response.get("error"), dict | str) and not response.get("choices"):
        raise Refused(words(response))
    try:
        choice = response["choices"][0]
        message = choice["message"]
        text, refusal = _text(message["content"]), message.get("refusal")
        model = response.get("model") or model
        tokens = (choice.get("logprobs") or {}).get("content") or []
    except (AttributeError, IndexError, TypeError, KeyError, ValueError) as error:
        raise Unusable(f"an unreadable response ({type(error).__name__})") from None
    if not isinstance(model, str):
        raise Unusable("a response without a model's name")
    finish = choice.get("finish_reason")
    if not text and (refusal or finish == "content_filter"):
        return Answer("", model, problem=f"refused: {refusal or 'the content filter stopped the answer'}"[:300])
    thought = message.get("reasoning_content") or message.get("reasoning")
    unfinished = re.match(THOUGHT_STARTS, text or "") and not re.search(THOUGHT_ENDS, text)
    if unfinished or (not text and (thought or finish == "length")):
        raise OutOfTokens
    if text is None:
        raise Unusable("a response without text")
    return Answer(re.sub(rf"^{THOUGHT_STARTS}.*</\1>\n*", "", text, flags=re.DOTALL), model, *_logprobs(tokens))


def _text(content) -> str | None:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type", "text") in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content


def _logprobs(tokens: list) -> tuple[list[dict[str, float]] | None, str | None]:
    """Alternatives of the first token after any thinking; None without alternatives. And what is wrong with them."""
    try:
        ends = [
            place for place, token in enumerate(tokens) if re.search(r"</(think|thinking|reasoning)>", token["token"])
        ]
        after = tokens[ends[-1] + 1 :] if ends else tokens
        first = next((t for t in after if t["token"].strip()), after[0]) if ends else tokens[0]
        if not first.get("top_logprobs"):
            return None, None  # the distribution is unknown
        values = {t["token"]: float(t["logprob"]) for t in (first, *first["top_logprobs"])}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None, None
    if not all(math.isfinite(value) and value <= 0.01 for value in values.values()):
        return None, "log-probabilities that are NaN, infinite or positive"
    return [values], None


def words(body, limit: int = 300) -> str:
    """The endpoint's own words in the body of an error: its message and code."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        parts = [str(error[name]) for name in ("message", "code") if error.get(name)]
        error = " ".join(dict.fromkeys(parts)) or json.dumps(error)
    return " ".join(str(error).split())[:limit]


def usage(response: dict, question: Question, answer: Answer, largest: int) -> dict[str, int]:
    """Tokens as the endpoint counts them, or the most that they can be. largest: completion tokens allowed."""
    try:
        counted = {name: int(response["usage"][name]) for name in ("prompt_tokens", "completion_tokens")}
        if min(counted.values()) >= 0:
            return counted
    except (KeyError, TypeError, ValueError):
        pass
    completion = largest if answer.problem or not answer.text else min(largest, len(answer.text.encode()))
    return {"prompt_tokens": question.most_prompt_tokens, "completion_tokens": completion}
