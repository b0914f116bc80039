"""Runs a command whose processes all end with the process that started it.

    python -P guard.py <descriptor> <whom to terminate: self or children> <command> ...

The descriptor is the read end of a pipe. A byte in it passes SIGTERM on; its end, which also comes when the process
that holds the other side is killed, ends every process that the command started, in whatever session.
Exit code: the command's, 128 + n where signal n ended it.

Only the standard library and psutil are imported: the file runs as a script, before each command (but see `warm`).
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36  # linux/prctl.h


class Terminated(SystemExit):
    """SIGTERM or SIGHUP has ended this process and all that it started; `code` is 128 + signal."""


def end_with_parent() -> None:
    """Make the kernel kill this process when the one that started it ends; without effect where that is not Linux."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def show_as(name: str) -> None:
    """Name this process for `top` and `ps -e`, by the first 15 characters."""
    _prctl(PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Forked:
    """A child that was forked, with what is read here of a subprocess.Popen."""

    def __init__(self, pid: int):
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode


def guard(descriptor: int, inner: bool, command: list[str]) -> int:
    """Run `command` until it ends or the pipe does; inner: SIGTERM goes to the command's children instead of itself."""
    wake = listen()
    return watch(subprocess.Popen(command, preexec_fn=end_with_parent), descriptor, wake, inner)


def listen() -> int:
    """Make this process a guard: signals wake it by a byte in the descriptor that is returned, and end nothing."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans become children of this process, so that none is out of reach
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # an empty handler is not inherited, as SIG_IGN would be
    return wake


def watch(child: subprocess.Popen | Forked, descriptor: int, wake: int, inner: bool) -> int:
    """Wait until a child of this process ends or the pipe does, and end all that it started."""
    descriptors = [descriptor, wake]
    while child.poll() is None:
        ready, _, _ = select.select(descriptors, [], [], 1.0)
        if wake in ready:
            os.read(wake, 1024)
        if descriptor in ready:
            if not os.read(descriptor, 1):
                break
            _terminate(child.pid, inner)
    code = child.returncode
    _end_descendants()
    return 137 if code is None else code if code >= 0 else 128 - code


def _terminate(pid: int, inner: bool) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in process.children() if inner else [process]:
            one.terminate()


def _end_descendants() -> None:
    """Kill all descendants, repeatedly: a process may start another one in the meantime."""
    import psutil

    deadline = time.monotonic() + 5
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2] == "children", sys.argv[3:]))
