"""A process that has imported heavy packages, and is forked for every `python -m <module>`: each saves the seconds.

    python -m rlhf_trl_ext.stages.warm <descriptor of a socket> <process that holds the other end> <module> ...

A message is a folder and the words of a command as JSON, with three descriptors: of the guard's pipe, of what the
command prints, and of where the guard writes the exit code at the end. This project's own modules are imported anew by
every command, which so runs them as they are when it starts.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_trl_ext.stages import guard

MESSAGE = 1 << 16  # bytes
OWN = ("rlhf_trl_ext", "evaluation", "launchers")


class Warm:
    """The process, seen from the one that starts it; it ends with that one. modules: what is imported first."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]):
        self.environment = dict(environment)
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            words = [str(far.fileno()), str(os.getpid()), *modules]
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                start_new_session=True,
            )

    def start(self, words: Sequence[str], pipe: int, output: int) -> "Started":
        """`python -m <words>` under a guard that reads `pipe`. Raises OSError where the process is gone."""
        status, far = os.pipe()
        try:
            message = json.dumps([os.getcwd(), *words]).encode()
            socket.send_fds(self._socket, [message], [pipe, output, far])
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(far)
        return Started(status)

    def close(self) -> None:
        """End it, also while it imports; what was forked has ended, or its guard ends it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


class Started:
    """A command that runs, with what is used of a subprocess.Popen."""

    def __init__(self, status: int):
        self._status, self._code = status, None

    def wait(self, timeout: float | None = None) -> int:
        """Exit code, 137 where its guard was killed; raises subprocess.TimeoutExpired."""
        if self._code is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("", timeout)
            self._code = int(os.read(self._status, 16) or 137)
            os.close(self._status)
        return self._code


def preload(modules: Sequence[str], parent: int) -> None:
    """Import what can be; a command that needs the rest says why it cannot. Ends this process with `parent`."""
    signal.signal(signal.SIGALRM, lambda *_: os.getppid() == parent or os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # or collections would copy these objects into every process


def next_command(connection: socket.socket) -> list[str] | None:
    """In a new process, the next command, with all set for it; in this one None, once the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE, 3)
        if not message:
            return None
        if os.fork() == 0:
            connection.close()
            return _guarded(*json.loads(message), descriptors=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _guarded(folder: str, *command: str, descriptors: list[int]) -> list[str]:
    """The command, in a fork of this process, which stays behind as the fork's guard and never returns."""
    pipe, output, status = descriptors
    os.setsid()
    os.chdir(folder)
    for number in guard.SIGNALS:  # as a process that is started anew has them
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    if pid := os.fork():
        code = guard.watch(guard.Forked(pid), pipe, guard.listen(), inner=False)
        os.write(status, str(code).encode())
        os._exit(0)
    guard.end_with_parent()
    guard.show_as(Path(command[-1]).name)
    for descriptor in descriptors:
        os.close(descriptor)
    return list(command)


if __name__ == "__main__":
    preload(sys.argv[3:], int(sys.argv[2]))
    if command := next_command(socket.socket(fileno=int(sys.argv[1]))):
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]
        sys.argv[:] = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
