"""The gateway: one Starlette app in front of engines, with OpenAI's routes. Thin: it limits, measures and records."""

import asyncio
import contextlib
import gc
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import aiohttp
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rlhf_trl_ext.serving import feedback
from rlhf_trl_ext.serving.engine import KINDS, Engine, whole_model
from rlhf_trl_ext.serving.exchange import Exchange
from rlhf_trl_ext.serving.limits import Keys, Limits, Refusal, Slots, check_body, read_json
from rlhf_trl_ext.serving.metrics import Metrics
from rlhf_trl_ext.serving.routing import Routing
from rlhf_trl_ext.serving.scoring import Scoring
from rlhf_trl_ext.serving.traffic import Stopped, Traffic, Unknown

ANSWERS = ("/v1/chat/completions", "/v1/completions")
LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]
OF_GATEWAY = ("user", "metadata")  # of a request: engines refuse or ignore them


def create_app(
    policies: str | dict[str, str],
    engine: str = "transformers",
    shares: dict[str, float] | None = None,
    limits: Limits | None = None,
    keys: Iterable[str] = (),
    traffic: str | Path | None = "outputs/traffic/traffic.sqlite",
    keep_days: float | None = None,
    redact: Callable[[str], str] | None = None,
    reward: str | None = None,
    reward_share: float = 0.1,
    engine_options: Iterable[str] = (),
    max_batch_size: int | None = None,
    hidden: Iterable[str] = (),
    any_host: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> Starlette:
    """The gateway as an ASGI app, for uvicorn; its start starts the engines and its end ends them.

    policies: a folder, a hub id or, with engine=url, an address; or several by name, each answering the share of the
    conversations that `shares` gives it (by default equal ones), always the same conversations. keys: one of which a
    client must give; none for everyone. traffic: the file that answers and feedback go to (see `Traffic`); None records
    nothing. reward: folder of a reward model that scores `reward_share` of the answers in a process of its own.
    hidden: names of environment variables that engines do not get. any_host: take requests under any name, not only
    this machine's own. on_ready: called when all engines answer.
    Raises ValueError for what is not allowed.
    """
    if engine not in KINDS:
        raise ValueError(f"engine={engine}: allowed are {', '.join(KINDS)}.")
    named = {Path(policies.rstrip("/")).name: policies} if isinstance(policies, str) else dict(policies)
    metrics, folder = Metrics(), Path(traffic).parent if traffic else Path("outputs/traffic")
    if engine in ("transformers", "vllm"):
        named = {name: whole_model(path, folder) for name, path in named.items()}
    own = {"options": list(engine_options), "max_batch_size": max_batch_size, "hidden": list(hidden)}
    engines = {name: Engine(name, engine, path, metrics, folder / f"{name}.log", **own) for name, path in named.items()}
    if reward and not traffic:
        raise ValueError(f"reward={reward} with record=false: what is not recorded cannot be scored.")
    store = Traffic(traffic, keep_days, redact) if traffic else None
    scoring = Scoring(Path(traffic), reward, reward_share, folder / "scoring.log", metrics) if reward else None
    gateway = Gateway(engines, Routing(list(named), shares), limits or Limits(), Keys(keys), store, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            async with gateway.running(scoring):
                on_ready()
                yield
        except ValueError as error:
            app.state.failure = str(error)  # for whoever started the server
            raise

    routes = [Route(path, gateway.answer, methods=["POST"]) for path in ANSWERS]
    routes += [Route("/v1/feedback", gateway.feedback, methods=["POST"]), Route("/v1/models", gateway.models)]
    routes += [Route("/metrics", gateway.exposition), Route("/health", gateway.health)]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["*"] if any_host else LOOPBACK)
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[hosts], exception_handlers={Refusal: gateway.refused})
    app.state.failure = None
    return app


class Gateway:
    """The routes of `create_app`."""

    def __init__(self, engines, routing, limits: Limits, keys: Keys, store: Traffic | None, metrics: Metrics):
        self.engines, self.routing, self.limits, self.keys = engines, routing, limits, keys
        self.store, self.metrics, self.slots = store, metrics, Slots(limits.max_concurrent_requests)
        metrics.running.set_function(lambda: self.slots.taken)
        metrics.dropped.set_function(lambda: store.dropped if store else 0)

    @contextlib.asynccontextmanager
    async def running(self, scoring: Scoring | None) -> AsyncIterator[None]:
        """Start the engines, and end them; what has queued up for the traffic file is written."""
        connections = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=self.limits.timeout)
        async with aiohttp.ClientSession(connector=connections, timeout=timeout, auto_decompress=True) as self.session:
            try:
                async with asyncio.TaskGroup() as starts:
                    for engine in self.engines.values():
                        starts.create_task(engine.start(self.session))
                if scoring:
                    await scoring.start()
                gc.collect()
                gc.freeze()  # a full collection of what was imported stops all streams for tens of milliseconds
                yield
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                await asyncio.gather(*(each.stop() for each in (*self.engines.values(), scoring) if each))
                if self.store:
                    await asyncio.to_thread(self.store.close)

    async def refused(self, _request: Request, refusal: Refusal) -> Response:
        self.metrics.rejected.labels(refusal.status).inc()
        return refusal.response()

    async def answer(self, request: Request) -> Response:
        """An answer of a policy's engine, whole or as a stream."""
        begin = time.perf_counter()
        self.keys.check(request)
        self.slots.take()
        exchange = None
        try:
            body = await read_json(request, self.limits.max_body_bytes)
            check_body(body, request.url.path, self.limits)
            exchange = await self._begin(request, body, begin)
            if not body.get("stream") or exchange.response.status != 200:
                return await self._whole(exchange)
        except BaseException:
            if exchange:
                exchange.finish("cancelled")
            else:
                self.slots.free()
            raise
        return _Stream(exchange)

    async def _begin(self, request: Request, body: dict, begin: float) -> Exchange:
        """Send a request to an engine. Raises Refusal where none answers."""
        policy, conversation = self.routing.choose(body, request.headers.get("x-conversation-id"))
        engine = self.engines[policy]
        sent = engine.request({key: value for key, value in body.items() if key not in OF_GATEWAY})
        answer_id = f"ans-{uuid.uuid4().hex}"
        try:
            response = await self._post(engine, request.url.path, sent, answer_id)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.metrics.failure.labels(policy, "unreachable").inc()
            raise Refusal(503, f"the engine of {policy} does not answer: ask again.", "server_error") from error
        return Exchange(answer_id, policy, engine.version, conversation, body, response, begin, self)

    async def _post(self, engine: Engine, path: str, sent: dict, answer_id: str) -> aiohttp.ClientResponse:
        """Ask an engine when it answers; again where its connection breaks before it has, as that of a killed one."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.limits.engine_wait
        while True:
            await asyncio.wait_for(engine.ready.wait(), end - loop.time())
            try:
                return await self.session.post(f"{engine.url}{path}", json=sent, headers={"x-request-id": answer_id})
            except aiohttp.ClientConnectionError:
                if engine.kind == "url" or loop.time() > end:
                    raise
            await asyncio.sleep(0.2)

    async def _whole(self, exchange: Exchange) -> Response:
        try:
            content = await exchange.response.read()
            payload = json.loads(content)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = "timeout" if isinstance(error, TimeoutError) else "engine ended"
            exchange.finish(reason)
            status = 504 if isinstance(error, TimeoutError) else 502
            raise Refusal(status, f"{reason} before the answer was whole: ask again.", "server_error") from error
        status = exchange.response.status
        if status == 200:
            exchange.answer.rewrite(payload)
            await exchange.stored()
        exchange.finish(f"engine answered {status}")
        return JSONResponse(payload, status, {"x-response-id": exchange.answer.id})

    async def feedback(self, request: Request) -> Response:
        """Store what somebody says of an answer; answered when it is on disk."""
        self.keys.check(request)
        body = await read_json(request, self.limits.max_body_bytes)
        if self.store is None:
            raise Refusal(409, "nothing is recorded here, so nothing can be said of an answer.")
        try:
            given = feedback.parse(body)
            policy = await asyncio.wrap_future(self.store.feedback(given))
        except Unknown as error:
            raise Refusal(404, str(error)) from None
        except Stopped as error:
            raise Refusal(503, str(error), "server_error") from None
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        if policy is not None:
            value = given.value if given.kind in ("thumb", "rating") else ""
            self.metrics.feedback.labels(policy, given.kind, value).inc()
        return JSONResponse({"id": given.id, "stored": True, "new": policy is not None})

    async def models(self, request: Request) -> Response:
        self.keys.check(request)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "gateway"} for name in self.routing.names]
        return JSONResponse({"object": "list", "data": data})

    async def exposition(self, _request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def health(self, _request: Request) -> Response:
        """200 where every engine answers, else 503; `recording` says whether answers are stored."""
        up = {name: engine.ready.is_set() for name, engine in self.engines.items()}
        recording = None if self.store is None else not self.store.stopped
        return JSONResponse({"engines": up, "recording": recording}, 200 if all(up.values()) else 503)


class _Stream(StreamingResponse):
    """A stream whose end, whatever it is, gives the slot back and is recorded."""

    def __init__(self, exchange: Exchange):
        response, self.exchange = exchange.response, exchange
        headers = {"x-response-id": exchange.answer.id, "cache-control": "no-cache"}
        kind = response.headers.get("content-type", "text/event-stream").partition(";")[0]
        super().__init__(exchange.pieces(), response.status, headers, media_type=kind)

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.exchange.finish("cancelled")
