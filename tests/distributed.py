"""Two processes of a test's worker, forked where what is heavy has been imported once.

Usage: `distributed.py <worker> <argument>...`; each process has the environment that `accelerate launch` gives, which
other tests start (tests/launchers).
"""

import importlib
import os
import runpy
import signal
import socket
import subprocess
import sys

from conftest import ON_CPU, ROOT

from rlhf_trl_ext.stages.execution import HEAVY
from rlhf_trl_ext.stages.guard import end_with_parent

SETTINGS = {
    **ON_CPU,
    "save_strategy": "steps",
    "save_steps": 1,
    "steps_per_generation": 1,
    "max_completion_length": 8,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-5,
}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"}
# What `accelerate launch --multi_gpu` or `--use_deepspeed --zero_stage <n>` sets.
LAUNCH = {"ddp": {}, **{f"zero{stage}": {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)} for stage in (2, 3)}}


def run(command: list[str], how: str = "ddp", timeout: float = 900) -> subprocess.CompletedProcess:
    """Run a worker with its arguments in two processes."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "TRL_EXPERIMENTAL_SILENCE": "1", **LAUNCH[how]}
    command = [sys.executable, __file__, *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def fork(rank: int, port: int, worker: str, arguments: list[str]) -> int:
    """The id of a process that runs the worker."""
    if child := os.fork():
        return child
    end_with_parent()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_MIXED_PRECISION": "no"}
    os.environ.update({name: str(value) for name, value in place.items()})
    sys.argv = [worker, *arguments]
    runpy.run_path(worker, run_name="__main__")
    sys.exit()


def main(worker: str, *arguments: str) -> None:
    for module in ("deepspeed", *HEAVY):
        importlib.import_module(module)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = {fork(rank, port, worker, list(arguments)) for rank in range(2)}
    while running:
        ended, status = os.wait()
        running.discard(ended)
        if status:
            for other in running:  # it would wait for what has failed
                os.kill(other, signal.SIGKILL)
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
