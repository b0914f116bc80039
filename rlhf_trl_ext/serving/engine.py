"""An engine: the process that generates, watched and started again; or the address of one that runs."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp

from rlhf_trl_ext.configuration.paths import adapter_folder, split_revision
from rlhf_trl_ext.files import read_mark
from rlhf_trl_ext.serving.metrics import Metrics
from rlhf_trl_ext.stages import guard
from rlhf_trl_ext.stages.logs import last_error

logger = logging.getLogger(__name__)

KINDS = ("transformers", "vllm", "onnx", "url")
LONGEST_BREAK = 60.0  # seconds between two starts
HEALTHY = 60.0  # seconds after which a crash counts as the first one
GRACE = 10.0  # seconds from SIGTERM to SIGKILL


def command(kind: str, model: str, port: int, options: list[str], max_batch_size: int | None) -> list[str]:
    """The command line of an engine on loopback. Raises ValueError for one that is absent or has no such limit."""
    if kind == "vllm":
        name, revision = split_revision(model)
        program = [_program("vllm", "an environment of its own: make setup-gpu"), "serve", name]
        program += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", model]
        program += ["--revision", revision] if revision else []
        return program + (["--max-num-seqs", str(max_batch_size)] if max_batch_size else []) + options
    if kind == "onnx":
        program = [sys.executable, "-m", "rlhf_trl_ext.serving.onnx_engine", model, "--port", str(port)]
        return program + (["--max-batch-size", str(max_batch_size)] if max_batch_size else []) + options
    if max_batch_size:
        raise ValueError(
            f"max_batch_size={max_batch_size}: transformers serve counts tokens of a batch; give 'engine_options="
            '[--continuous-batching,--cb-max-batch-tokens,"512"]\', or engine=vllm.'
        )
    program = [_program("transformers", "pip install 'rlhf-trl-ext[serving]'"), "serve", model]
    return [*program, "--host", "127.0.0.1", "--port", str(port), *options]


def whole_model(model: str, cache: Path) -> str:
    """A folder or hub id as engines read it: adapters are merged into their base, in a folder of `cache`."""
    if adapter_folder(model) is None:
        return model
    from rlhf_trl_ext.models.loading import ModelArguments

    return ModelArguments(model_name_or_path=model).checkpoint(cache / "built")


def _program(name: str, install: str) -> str:
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.exists() else shutil.which(name)
    if not program:
        raise ValueError(f"engine={name}: {name} is not installed; {install}.")
    return program


class Engine:
    """One policy's engine. `ready` is set while it answers; `url`: its address; `model`: what it calls the model.

    kind: of `KINDS`. model: folder or hub id; with kind url, the address, of which `/v1/models` names the model. log:
    what the process prints. hidden: variables of the environment that it does not get.
    """

    def __init__(
        self,
        policy: str,
        kind: str,
        model: str,
        metrics: Metrics,
        log: Path,
        options: list[str] = (),
        max_batch_size: int | None = None,
        hidden: list[str] = (),
    ):
        self.policy, self.kind, self.model, self.metrics, self.log = policy, kind, model, metrics, log
        self.version = str(Path(model).resolve()) if kind != "url" and Path(model).exists() else model
        self.ready, self._task, self._process, self._pipe = asyncio.Event(), None, None, None
        self._hidden, self.url = set(hidden), model.rstrip("/").removesuffix("/v1") if kind == "url" else ""
        if kind != "url":
            self._port = _free_port()
            self.url = f"http://127.0.0.1:{self._port}"
            self.command = command(kind, model, self._port, list(options), max_batch_size)

    def request(self, body: dict) -> dict:
        """A request as the engine is sent it.

        transformers decodes greedily whatever the temperature, unless the generation configuration says otherwise.
        """
        body = {**body, "model": self.model}
        if self.kind != "transformers" or not body.get("temperature") or "generation_config" in body:
            return body
        own = read_mark(Path(self.model) / "generation_config.json") or {}
        drawn = {"max_new_tokens": 1024, "top_k": 0, **own, "do_sample": True}
        return {**body, "generation_config": json.dumps(drawn)}

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start and wait until it answers; from then on it is watched. Raises ValueError for one that ends before."""
        if self.kind == "url":
            await self._ask_for_model(session)
        else:
            await self._launch()
            if not await self._answers(session):
                reason = last_error(self.log, self._process.returncode)
                raise ValueError(f"engine={self.kind} of {self.policy} ended: {reason} (see {self.log}).")
        self._set(True)
        if self.kind != "url":
            self._task = asyncio.create_task(self._watch(session))

    async def stop(self) -> None:
        """End the process and all that it started."""
        await cancelled(self._task)
        if self._process and self._process.returncode is None:
            os.write(self._pipe, b"t")  # SIGTERM
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), GRACE)
        await self._end()

    async def _end(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)  # the guard ends whatever is left
            self._pipe = None
        if self._process:
            await self._process.wait()

    def _set(self, up: bool) -> None:
        (self.ready.set if up else self.ready.clear)()
        self.metrics.engine_up.labels(self.policy).set(up)

    async def _launch(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        read, self._pipe = os.pipe()
        environment = {name: value for name, value in os.environ.items() if name not in self._hidden}
        guarded = [sys.executable, "-P", guard.__file__, str(read), "self", *self.command]
        with self.log.open("ab") as output:
            where = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            self._process = await asyncio.create_subprocess_exec(
                *guarded, env=environment, pass_fds=[read], start_new_session=True, **where
            )
        os.close(read)

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        """Wait until `/health` is 200, or the process has ended."""
        while self._process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{self.url}/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                    if response.status == 200:
                        return True
            await asyncio.sleep(0.1)
        return False

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        loop, pause = asyncio.get_running_loop(), 1.0
        begin = loop.time()
        while True:
            await self._process.wait()
            self._set(False)
            pause = 1.0 if loop.time() - begin > HEALTHY else min(2 * pause, LONGEST_BREAK)
            code = self._process.returncode
            logger.error("engine of %s ended with code %s; it is started again in %g s.", self.policy, code, pause)
            await self._end()
            await asyncio.sleep(pause)
            self.metrics.restarts.labels(self.policy).inc()
            begin = loop.time()
            await self._launch()
            if await self._answers(session):
                self._set(True)
                logger.warning("engine of %s answers again.", self.policy)

    async def _ask_for_model(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(f"{self.url}/v1/models", timeout=aiohttp.ClientTimeout(total=30)) as response:
                self.model = (await response.json())["data"][0]["id"]
        except (aiohttp.ClientError, TimeoutError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"policy {self.policy}={self.url}: /v1/models names no model ({type(error).__name__}); give the "
                "address of an engine that runs."
            ) from error


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


async def cancelled(task: asyncio.Task | None) -> None:
    """End a background task, if there is one, and wait until it has ended."""
    if task:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
