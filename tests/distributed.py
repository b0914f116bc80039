"""Runs of a test's worker alone or as two processes, and what they all are given."""

import os
import socket
import subprocess
import sys

from conftest import ON_CPU, ROOT

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
LAUNCH = {
    "ddp": ["--multi_gpu"],
    "zero2": ["--use_deepspeed", "--zero_stage", "2"],
    "zero3": ["--use_deepspeed", "--zero_stage", "3", "--zero3_save_16bit_model", "true"],
}


def run(command: list[str], how: list[str] | None = None, timeout: float = 900) -> subprocess.CompletedProcess:
    """Run a Python command in this process's environment; with `how`, twice under accelerate with those options."""
    launch = []
    if how is not None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port, *how]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "TRL_EXPERIMENTAL_SILENCE": "1"}
    command = [sys.executable, *launch, *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
