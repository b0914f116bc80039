"""The dashboard's HTTP application: the page and the JSON that it fetches; read-only."""

import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from evaluation.files import finite
from evaluation.report.dashboard.production import Production
from evaluation.report.dashboard.runs import LoggedRuns

FOLDER = Path(__file__).parent
FILES = (FOLDER / "page.js", FOLDER.parent / "style.css", *sorted((FOLDER.parent / "vendor").glob("*.min.*")))
FILES = {f"/{path.name}": path for path in FILES}
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")  # a Host header has an IPv6 address in brackets
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def application(runs: LoggedRuns, host: str = "127.0.0.1", days: float = 7) -> Starlette:
    """`/`: the page, and its files. `/runs`; `/logged?run=&after=`; `/samples?run=`; `/traffic`: JSON, see `LoggedRuns`
    and `Production`. days: of traffic that are shown.

    On a loopback address requests for other names are refused: a web site open in the same browser could otherwise
    have its name point here, and read along.
    """

    production = Production(runs.root, days)

    def run_name(request: Request) -> str:
        name = request.query_params.get("run", "")
        if name not in runs.folders():
            raise HTTPException(404, f"run={name}: no such run.")
        return name

    def listed(request: Request):
        return JSONResponse({"root": runs.title, "runs": runs.summaries()})

    def logged(request: Request):
        after = request.query_params.get("after", "0")
        if not after.isdecimal():
            raise HTTPException(400, f"after={after}: a number of bytes is needed.")
        return JSONResponse(runs.logged(run_name(request), int(after)))

    def samples(request: Request):
        return JSONResponse(runs.samples(run_name(request)))

    def traffic(request: Request):
        return JSONResponse(finite(production.files()))

    routes = [Route("/", lambda request: FileResponse(FOLDER / "page.html")), Route("/runs", listed)]
    routes += [Route(name, lambda request: FileResponse(FILES[request.url.path])) for name in FILES]
    routes += [Route("/logged", logged), Route("/samples", samples), Route("/traffic", traffic)]
    allowed = [*LOOPBACK, host] if host in LOOPBACK else ["*"]
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=allowed),
        Middleware(BaseHTTPMiddleware, dispatch=_guarded),
    ]
    return Starlette(routes=routes, middleware=guards)


async def _guarded(request: Request, call_next):
    """The answer with headers that let the page load its own script and nothing else."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address; port 0 takes any that is free. Raises ValueError if it cannot be had."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # pieces of a stream leave as they come
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ValueError(f"host={host}, port={port}: {error.strerror}; give another port, or 0 for any.") from error
    return listening


def address(host: str, listening: socket.socket) -> str:
    """The URL at which `listen`'s socket answers."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def server(runs: LoggedRuns, host: str, days: float = 7) -> uvicorn.Server:
    """`server(...).run(sockets=[listen(...)])` serves until interrupted."""
    return uvicorn.Server(uvicorn.Config(application(runs, host, days), log_level="warning"))


def serve(runs: LoggedRuns, host: str, port: int, days: float = 7) -> None:
    """Tell the address and serve until interrupted."""
    listening = listen(host, port)
    print(f"runs below {runs.root}: {address(host, listening)}", flush=True)
    server(runs, host, days).run(sockets=[listening])
