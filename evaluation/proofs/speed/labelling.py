"""What labelling costs besides waiting: `python -m evaluation.proofs.speed.labelling --labels 10000 --latency 2`.

A loopback endpoint in a process of its own answers after `latency` seconds. Printed are the labels a second, the
client's processor time as a share of the wall time (a process that only waits has none), and the resident memory after
a tenth of the labels and at the end.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SERVER = Path(__file__).parents[3] / "tests/judging/server.py"


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def pairs(count: int):
    """Pairs of about the length of chat replies."""
    from rlhf_trl_ext.judging.labelling import Pair

    for number in range(count):
        scores = number % 7, (number + 1 + number % 5) % 7  # never the same
        first, second = (f"score={score} " + "A reply of some length. " * 20 for score in scores)
        yield Pair(f"Question {number}: what is to be done?", first, second).ordered()


def measure(labels: int, latency: float, concurrency: int, folder: Path) -> dict:
    """Label once; returns wall and processor seconds and memory."""

    from rlhf_trl_ext.judging.client import Client
    from rlhf_trl_ext.judging.endpoint import EndpointJudge
    from rlhf_trl_ext.judging.labelling import Labelling

    command = [sys.executable, str(SERVER), json.dumps({"latency": latency})]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"

    def client(model, base_url):
        return Client(model, str(folder / "record.jsonl"), base_url, key_variable=None, concurrency=concurrency)

    judge = EndpointJudge(client=client, model="judge", base_url=url)
    memory: list[float] = []
    record, done = judge.client.record, threading.Event()

    def watch():
        while not done.wait(0.2):
            if not memory and record.requests >= 2 * labels // 10:
                memory.append(resident())

    threading.Thread(target=watch, daemon=True).start()
    wall, processor = time.monotonic(), time.process_time()
    try:
        with (folder / "labels.jsonl").open("w") as file:
            for label in Labelling().labels(lambda: pairs(labels), judge, labels):
                file.write(json.dumps(label.row()) + "\n")
    finally:
        server.kill()
        done.set()
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    return {"wall": wall, "processor": processor, "memory": [*memory, resident()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds an answer takes")
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.labels, arguments.latency, arguments.concurrency, Path(folder))
    bound = arguments.latency * 2 * arguments.labels / arguments.concurrency
    memory = " -> ".join(f"{value:.0f}" for value in result["memory"])
    print(
        f"{arguments.labels:,} labels, two orders: {result['wall']:.1f} s, {bound:.1f} s of them waiting at the least"
    )
    print(f"processor time {result['processor']:.1f} s, {result['processor'] / result['wall']:.2%} of the wall time")
    print(f"resident memory, MB: {memory}")


if __name__ == "__main__":
    main()
