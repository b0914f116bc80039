import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def endpoint(tmp_path):
    """`endpoint(latency=0.1, faults=0.2)` starts the loopback server; returns its base_url and its log, a list."""
    running = []

    def start(**settings):
        log = tmp_path / f"server-{len(running)}.log"
        command = [
            sys.executable,
            str(Path(__file__).with_name("server.py")),
            json.dumps({**settings, "log": str(log)}),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        port = int(process.stdout.readline())

        def seen():
            return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

        return f"http://127.0.0.1:{port}/v1", seen

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()
