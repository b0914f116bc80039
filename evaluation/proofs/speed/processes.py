"""Measurements in processes of their own, whose memory and threads are theirs alone."""

import json
import os
import subprocess


def measure(command: list[str]) -> dict:
    """What a command prints as one line of JSON after "RESULT "; it has one thread, as two would wait for each other.

    Raises CalledProcessError where it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))
