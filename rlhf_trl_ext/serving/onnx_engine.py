"""An exported ONNX model behind OpenAI's routes: `python -m rlhf_trl_ext.serving.onnx_engine <export> --port 8001`.

What the gateway starts with engine=onnx. onnxruntime-genai generates, in one thread a sequence.
"""

import argparse
import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import AutoTokenizer

from rlhf_trl_ext.serving.export import read_record
from rlhf_trl_ext.serving.verification import GenAI, digests

LONGEST = 1024  # tokens of an answer whose request names no number
KNOWN = {"model", "messages", "prompt", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"}


class OnnxEngine:
    """folder: of a verified export in format onnx. max_batch_size: sequences at once. Raises ValueError for others."""

    def __init__(self, folder: Path, max_batch_size: int):
        record = read_record(folder)
        if record["format"] != "onnx":
            raise ValueError(f"{folder} is an export in format={record['format']}: format=onnx is needed to generate.")
        if record["files"] != digests(folder):
            raise ValueError(f"{folder} has changed since it was verified: verify it by launchers.export build=false.")
        self.name, self.model, self.tokenizer = str(folder), GenAI(folder), AutoTokenizer.from_pretrained(folder)
        self.places = threading.Semaphore(max_batch_size)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        if unknown := set(body) - KNOWN:
            return JSONResponse({"error": {"message": f"{', '.join(sorted(unknown))}: not known to this engine."}}, 400)
        chats = request.url.path.endswith("chat/completions")
        try:
            ids = self._ids(body, chats)
        except Exception as error:  # whatever a chat template refuses
            return JSONResponse({"error": {"message": f"the chat template refuses it: {error}"}}, 400)
        if body.get("stream"):
            return StreamingResponse(self._events(ids, body, chats), media_type="text/event-stream")
        return JSONResponse(await asyncio.to_thread(self._whole, ids, body, chats))

    def _ids(self, body: dict, chats: bool) -> list[int]:
        if not chats:
            return self.tokenizer(body["prompt"])["input_ids"]
        rendered = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=True)
        return rendered["input_ids"]

    def _tokens(self, ids: list[int], body: dict) -> Iterator[int]:
        count = body.get("max_completion_tokens") or body.get("max_tokens") or LONGEST
        heat = body.get("temperature", 0)
        options = {"do_sample": bool(heat)}
        if heat:
            options |= {"temperature": heat, "top_k": 0, "top_p": body.get("top_p", 1.0)}
            options |= {"random_seed": body["seed"]} if body.get("seed") is not None else {}
        with self.places:
            generator = self.model.generator(len(ids) + count, **options)
            generator.append_tokens(np.array([ids], dtype=np.int32))
            while not generator.is_done():
                generator.generate_next_token()
                yield int(generator.get_next_tokens()[0])

    def _end(self, tokens: list[int]) -> str:
        return "stop" if tokens and tokens[-1] in self.ends else "length"

    @property
    def ends(self) -> set[int]:
        return {self.tokenizer.eos_token_id}

    def _whole(self, ids: list[int], body: dict, chats: bool) -> dict:
        tokens = list(self._tokens(ids, body))
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        content = {"message": {"role": "assistant", "content": text}} if chats else {"text": text}
        choice = {"index": 0, **content, "finish_reason": self._end(tokens)}
        return self._about("chat.completion" if chats else "text_completion", choice, ids, tokens)

    def _events(self, ids: list[int], body: dict, chats: bool) -> Iterator[str]:
        kind, tokens, sent = "chat.completion.chunk" if chats else "text_completion", [], ""
        for token in self._tokens(ids, body):
            tokens.append(token)
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            if text.endswith("\ufffd"):  # in the middle of a character
                continue
            content = {"delta": {"content": text[len(sent) :]}} if chats else {"text": text[len(sent) :]}
            sent = text
            piece = {"index": 0, **content, "finish_reason": None}
            yield f"data: {json.dumps(self._about(kind, piece))}\n\n"
        last = {"index": 0, **({"delta": {}} if chats else {"text": ""}), "finish_reason": self._end(tokens)}
        yield f"data: {json.dumps(self._about(kind, last, ids, tokens))}\n\n"
        yield "data: [DONE]\n\n"

    def _about(self, kind: str, choice: dict, ids: list[int] = (), tokens: list[int] = ()) -> dict:
        used = {"prompt_tokens": len(ids), "completion_tokens": len(tokens), "total_tokens": len(ids) + len(tokens)}
        head = {"id": uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": self.name}
        return {**head, "choices": [choice], **({"usage": used} if tokens else {})}


def application(engine: OnnxEngine) -> Starlette:
    models = {"object": "list", "data": [{"id": engine.name, "object": "model"}]}
    routes = [Route(path, engine.answer, methods=["POST"]) for path in ("/v1/chat/completions", "/v1/completions")]
    routes += [Route("/health", lambda _: JSONResponse({})), Route("/v1/models", lambda _: JSONResponse(models))]
    return Starlette(routes=routes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--max-batch-size", type=int, default=1)
    given = parser.parse_args()
    app = application(OnnxEngine(given.folder, given.max_batch_size))
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
