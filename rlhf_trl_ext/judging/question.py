"""One question to a chat model and its answer."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Question:
    """Messages in OpenAI's form and the sampling settings; top_logprobs > 0 asks for that many per token.

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

    def body(self, model: str, logprobs: bool = True) -> dict:
        """The request as OpenAI's chat endpoint takes it."""
        body = {"model": model, "messages": list(self.messages), "max_tokens": self.max_tokens}
        body["temperature"] = self.temperature
        if self.top_logprobs and logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body

    def read(self, response) -> "Answer":
        """The answer in the response as JSON. Raises Unusable."""
        return read(response)


@dataclass(frozen=True)
class Answer:
    """text; the model that the endpoint says answered; for each token the log-probabilities of its alternatives.

    logprobs: `[{token: log-probability}]`, one dictionary a token, or None where the endpoint gave none.
    """

    text: str
    model: str
    logprobs: list[dict[str, float]] | None = None


class Unusable(Exception):
    """A response that holds no answer."""


def read(response) -> Answer:
    """The answer in a chat completion as JSON. Raises Unusable for garbage, no choices, no text."""
    try:
        choice = response["choices"][0]
        text, model = choice["message"]["content"], response["model"]
        tokens = (choice.get("logprobs") or {}).get("content") or []
        logprobs = [{t["token"]: float(t["logprob"]) for t in (token, *token["top_logprobs"])} for token in tokens]
    except (AttributeError, IndexError, TypeError, KeyError, ValueError) as error:
        raise Unusable(f"an unreadable response ({type(error).__name__})") from None
    if not isinstance(text, str) or not isinstance(model, str):
        raise Unusable("a response without text")
    return Answer(text, model, logprobs or None)


def usage(response: dict, question: Question, answer: Answer) -> dict[str, int]:
    """Tokens as the endpoint counts them, or the most that they can be."""
    try:
        counted = {name: int(response["usage"][name]) for name in ("prompt_tokens", "completion_tokens")}
        if min(counted.values()) >= 0:
            return counted
    except (KeyError, TypeError, ValueError):
        pass
    return {
        "prompt_tokens": question.most_prompt_tokens,
        "completion_tokens": min(question.max_tokens, len(answer.text.encode())),
    }
