"""Servers in threads of the test's own process."""

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from evaluation.proofs.speed.gateway import stand_in
from rlhf_trl_ext.serving import create_app


@contextlib.contextmanager
def serving(app):
    """The address of an ASGI app while the block lasts."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(scope="session")
def engine():
    """Address of a stand-in engine."""
    with serving(stand_in(0.0)) as url:
        yield url


@pytest.fixture
def gateway(engine, tmp_path):
    """`with gateway(keys=["k"]) as url`: a gateway before the stand-in engine; its traffic is tmp_path/t.sqlite."""

    def start(policies=None, **settings):
        settings = {"traffic": tmp_path / "t.sqlite", **settings}
        return serving(create_app(policies or {"policy": engine}, engine="url", **settings))

    return start
