"""The form of a chat request, which differs between endpoints and models: it is learnt from what they refuse."""

import re
from typing import Any

TOP_LOGPROBS = 20  # OpenAI's most
THINKING_TOKENS = 2048
LIMITS = ("max_tokens", "max_completion_tokens")


class Form:
    """What an endpoint takes of a request.

    options: further fields of every request, which win; None leaves a field out. thinking_tokens: that a model may
    spend on reasoning before its answer, on top of the answer's; None: none, until the model shows that it reasons.
    version: how often the form has changed, for requests under way.
    """

    def __init__(self, options: dict[str, Any] | None = None, thinking_tokens: int | None = None):
        self.options, self.thinking_tokens = options or {}, thinking_tokens
        self.limit, self.thinks = LIMITS[0], bool(thinking_tokens)
        self.temperature, self.top_logprobs = True, TOP_LOGPROBS
        self.version = 0

    def body(self, model: str, messages: list[dict], max_tokens: int, temperature: float, top_logprobs: int) -> dict:
        """The request."""
        body: dict[str, Any] = {"model": model, "messages": messages}
        if not self.options.keys() & set(LIMITS):
            body[self.limit] = max_tokens + self.allowance
        if self.temperature:
            body["temperature"] = temperature
        if top_logprobs and self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": min(top_logprobs, self.top_logprobs)}
        return {name: value for name, value in (body | self.options).items() if value is not None}

    @property
    def allowance(self) -> int:
        """Tokens for reasoning."""
        return (self.thinking_tokens or THINKING_TOKENS) if self.thinks else 0

    def largest(self, max_tokens: int) -> int:
        """Completion tokens that a request may use."""
        limits = [self.options[name] for name in LIMITS if self.options.get(name)]
        return max(limits) if limits else max_tokens + self.allowance

    def adapt(self, refusal: str) -> str | None:
        """Change what a refusal names. Returns a sentence about the change, None where nothing is to be changed."""
        notice = None
        most = re.search(r"top_logprobs\D{1,60}?(\d+)", refusal)
        if "max_completion_tokens" in refusal and self.limit == LIMITS[0] and not self.options.keys() & set(LIMITS):
            self.limit, self.thinks = LIMITS[1], True
            notice = f"takes max_completion_tokens and may reason first: {self.allowance} tokens more are allowed."
        elif "temperature" in refusal and self.temperature and "temperature" not in self.options:
            self.temperature = False
            notice = "refuses the temperature: its own is used, so answers may differ when they are asked anew."
        elif most and 1 < int(most[1]) < self.top_logprobs:
            self.top_logprobs = int(most[1])
            notice = f"gives {self.top_logprobs} alternatives a token at the most."
        elif "logprobs" in refusal and self.top_logprobs:
            self.top_logprobs = 0
            notice = "refuses logprobs: verdicts are read from the text."
        self.version += notice is not None
        return notice

    def think(self) -> str | None:
        """Allow for reasoning. Returns a sentence, None where it is allowed for already."""
        if self.thinks or self.options.keys() & set(LIMITS):
            return None
        self.thinks, self.version = True, self.version + 1
        return f"reasons before it answers: {self.allowance} tokens more are allowed."
