"""Processes that end with the one that started them: plain ones and `accelerate launch`, side by side on GPUs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages import guard
from rlhf_trl_ext.stages.logs import last_error
from rlhf_trl_ext.stages.warm import Started, Warm

GRACE = 30.0  # seconds that a process has to save after SIGTERM, as Slurm's KillWait
LAUNCH = "accelerate.commands.launch"


class ProcessesEnded(Exception):
    """Raised for a process that is started, or cut off, after `Processes.end`."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended: `code` as a shell gives it, None after the time-out; `error`: in one line, "" if it is 0."""

    code: int | None
    error: str


class Processes:
    """Runs commands, at most one at a time in each place, and ends them with this process.

    As a context: SIGTERM and SIGHUP are passed on as SIGTERM, on which training saves, for at most `grace` seconds, and
    `guard.Terminated`, a SystemExit, is raised; any other exception, as that of SIGINT, ends all at once. Where this
    process is killed its children end as well, accelerate's workers too (see `guard`).

    places: CUDA_VISIBLE_DEVICES of what runs there, or None (see `gpu_places`). `ended` is set by `end`.
    modules: what `python -m` commands import; a process that has imported it is forked for each of them (see `warm`).
    """

    def __init__(self, places: Sequence[str | None] = (None,), grace: float = GRACE, modules: Sequence[str] = ()):
        self.count, self.grace, self.modules = len(places), grace, modules
        self._places: SimpleQueue = SimpleQueue()
        for place in places:
            self._places.put(place)
        self._pipes: set[int] = set()
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self._warm: Warm | None = None
        self._signal: int | None = None
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "Processes":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                    self._handlers[number] = signal.signal(number, self._terminated)
        return self

    def _terminated(self, number: int, _frame) -> None:
        if self._signal is None:
            self._signal = number
            raise guard.Terminated(128 + number)

    def __exit__(self, kind, error, _traceback) -> None:
        try:
            if error is not None:
                self.end(self.grace if self._signal else 0.0)
        finally:
            if self._warm:
                self._warm.close()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def end(self, grace: float = 0.0) -> None:
        """End all that runs and begin nothing more; grace: seconds after SIGTERM before they are killed."""
        with self._lock:
            self.ended.set()
            running = len(self._pipes)
        if grace and running:
            name = signal.Signals(self._signal or signal.SIGTERM).name
            print(f"{name}: waiting for {running} processes, at most {grace:.0f} s; training saves", file=sys.stderr)
            self._tell_all()
        deadline = time.monotonic() + grace
        try:
            while self._pipes and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            for pipe in list(self._pipes):
                self._close(pipe)

    def map(self, function: Callable, items: Iterable) -> list:
        """Results of `function`, which calls `run`, of every item; as many threads as there are places."""
        with ThreadPoolExecutor(self.count) as pool, self:
            try:
                return list(pool.map(function, items))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _tell_all(self) -> None:
        with self._lock:
            for pipe in self._pipes:
                with contextlib.suppress(BrokenPipeError):
                    os.write(pipe, b"t")

    def _close(self, pipe: int) -> None:
        with self._lock:
            if pipe in self._pipes:
                self._pipes.remove(pipe)
                os.close(pipe)

    def run(
        self,
        command: list[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Run a command when a place is free; what it prints is appended to `log`. May be called by several threads.

        environment: beside that of this process. timeout: seconds after which it is ended. watch: called while it runs.
        Raises ProcessesEnded.
        """
        with self._place() as place:
            gpus = {} if place is None else {"CUDA_VISIBLE_DEVICES": place}
            begin = log.stat().st_size if log.exists() else 0
            code = self._guarded(command, log, {**os.environ, **(environment or {}), **gpus}, timeout, watch)
        if self.ended.is_set():
            raise ProcessesEnded
        if code is None:
            return Outcome(None, f"timeout: not finished after {timeout} s")
        return Outcome(code, last_error(log, code, begin) if code else "")

    @contextlib.contextmanager
    def _place(self) -> Iterator[str | None]:
        place = self._places.get()
        try:
            yield place
        finally:
            self._places.put(place)

    def _guarded(self, command, log: Path, environment, timeout: float | None, watch) -> int | None:
        """Exit code; None after the time-out."""
        end = None if timeout is None else time.monotonic() + timeout
        with log.open("a") as output:
            with self._lock:
                if self.ended.is_set():
                    raise ProcessesEnded
                read, write = os.pipe()
                self._pipes.add(write)
            try:
                process = self._start(command, output, environment, read)
            except BaseException:
                self._close(write)
                raise
            finally:
                os.close(read)
            try:
                while end is None or time.monotonic() < end:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = process.wait(0.3)
                        return code if code >= 0 else 128 - code
                    watch()
                return None
            finally:
                self._close(write)
                process.wait()

    def _start(
        self, command: Sequence[str], output: TextIO, environment: dict, pipe: int
    ) -> subprocess.Popen | Started:
        """Start a command under a guard: as a fork where that is possible."""
        if self.modules and command[:2] == [sys.executable, "-m"] and LAUNCH not in command:
            with self._lock:
                self._warm = self._warm or Warm(self.modules, environment)
            if environment == self._warm.environment:
                with contextlib.suppress(OSError):
                    return self._warm.start(command[2:], pipe, output.fileno())
        whom = "children" if LAUNCH in command else "self"
        return subprocess.Popen(
            [sys.executable, "-P", guard.__file__, str(pipe), whom, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[pipe],
            start_new_session=True,  # the terminal's signals come to this process alone
        )


def accelerate_launch(module: str, num_processes: int, config_file: str | None = None) -> list[str]:
    """`accelerate launch -m module` on this machine, with a port of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launch = [LAUNCH, "--num_processes", str(num_processes), "--num_machines", "1", "--main_process_port", port]
    if config_file:
        launch += ["--config_file", config_file]
    else:
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        # On CPUs as well: with --cpu, accelerate would start one process.
        launch += ["--multi_gpu"] if num_processes > 1 else []
    return [sys.executable, "-m", *launch, "-m", module]


def gpu_places(num_processes: int, jobs: int | None = None) -> list[str | None]:
    """Disjoint sets of `num_processes` visible GPUs, as CUDA_VISIBLE_DEVICES, for `jobs` side by side.

    jobs: None: as many as there are sets; without GPUs one. Without GPUs the places are None. Raises ConfigError where
    the GPUs are too few.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        with contextlib.suppress(FileNotFoundError):
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
            visible = ",".join(map(str, range(listed.count("GPU "))))
    gpus = [gpu for gpu in (visible or "").split(",") if gpu]
    if not gpus:
        return [None] * (jobs or 1)
    size = num_processes
    sets = [",".join(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]
    if len(sets) < (jobs or 1):
        raise ConfigError(
            f"jobs={jobs or 1} with num_processes={size} needs {size * (jobs or 1)} GPUs and {len(gpus)} are visible: "
            "ask for fewer."
        )
    return sets[:jobs]
