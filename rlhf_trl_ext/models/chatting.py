"""A conversation with one or more policies, streamed as it is generated."""

import threading
from collections.abc import Iterator

import torch
from transformers import TextIteratorStreamer

from rlhf_trl_ext.models.sampling import sampling_options


class Chatter:
    """A policy and its side of a conversation. turns: what was said so far, in chat form.

    arguments: `ModelArguments`, for tokenizer and data type. path: folder or hub id; a folder of adapters is loaded
    on its base. system: a system turn to begin with.
    Raises ValueError, as `ModelArguments.tokenizer`, for a tokenizer without chat template or end-of-sequence token.
    """

    def __init__(self, name: str, path: str, arguments, max_new_tokens: int, temperature: float, system: str | None):
        self.name, self.first = name, [{"role": "system", "content": system}] if system else []
        self.tokenizer = arguments.tokenizer(path)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = arguments.policy(path, device_map=device)
        self.options = {"max_new_tokens": max_new_tokens, **sampling_options(self.model, self.tokenizer, temperature)}
        self.forget()

    def forget(self) -> None:
        """Begin a new conversation."""
        self.turns = list(self.first)

    def reply(self, text: str) -> Iterator[str]:
        """Pieces of the reply to a user's turn, as they come; the conversation goes on with both.

        Raises what generating raised.
        """
        self.turns.append({"role": "user", "content": text})
        inputs = self.tokenizer.apply_chat_template(
            self.turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        inputs.pop("token_type_ids", None)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        failures = []

        def generate() -> None:
            try:
                self.model.generate(**inputs, **self.options, streamer=streamer)
            except Exception as error:  # for the thread that reads
                failures.append(error)
                streamer.end()

        worker = threading.Thread(target=generate, daemon=True)
        worker.start()
        pieces = []
        for piece in streamer:
            pieces.append(piece)
            yield piece
        worker.join()
        if failures:
            raise failures[0]
        self.turns.append({"role": "assistant", "content": "".join(pieces)})
