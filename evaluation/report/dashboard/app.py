"""The page and what it asks for, over HTTP; reads runs and changes nothing."""

import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from evaluation.report.dashboard.runs import Runs

FOLDER = Path(__file__).parent
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def application(runs: Runs, host: str = "127.0.0.1") -> Starlette:
    """`/` and `/page.js`: the page. `/runs`; `/logged?run=&after=`; `/samples?run=`: JSON, see `Runs`.

    On a loopback address requests for other names are refused: a web site open in the same browser could otherwise
    have its name point here, and read along.
    """

    def named(request: Request) -> str:
        name = request.query_params.get("run", "")
        if name not in runs.folders():
            raise HTTPException(404, f"run={name}: no such run.")
        return name

    def listed(request: Request):
        return JSONResponse({"root": str(runs.root), "runs": runs.summaries()})

    def logged(request: Request):
        after = request.query_params.get("after", "0")
        if not after.isdecimal():
            raise HTTPException(400, f"after={after}: a line number is needed.")
        return JSONResponse(runs.logged(named(request), int(after)))

    def samples(request: Request):
        return JSONResponse(runs.samples(named(request)))

    routes = [Route("/", lambda request: FileResponse(FOLDER / "page.html")), Route("/runs", listed)]
    routes += [Route("/page.js", lambda request: FileResponse(FOLDER / "page.js"))]
    routes += [Route("/logged", logged), Route("/samples", samples)]
    allowed = [*LOOPBACK, host] if host in LOOPBACK else ["*"]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)])


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address; port 0 takes any that is free. Raises ValueError if it cannot be had."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ValueError(f"host={host}, port={port}: {error.strerror}; give another port, or 0 for any.") from error
    return listening


def server(runs: Runs, host: str) -> uvicorn.Server:
    """`server(...).run(sockets=[listen(...)])` serves until interrupted."""
    return uvicorn.Server(uvicorn.Config(application(runs, host), log_level="warning"))


def serve(runs: Runs, host: str, port: int) -> None:
    """Tell the address and serve until interrupted."""
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"runs below {runs.root}: http://{shown}:{listening.getsockname()[1]}", flush=True)
    server(runs, host).run(sockets=[listening])
