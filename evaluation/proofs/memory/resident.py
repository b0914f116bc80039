"""Peak resident memory of a piece of work in a process of its own."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Blocks from 64 KiB go back to the system when they are freed, so that the resident memory is what is live.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
ALLOCATOR |= {"TOKENIZERS_PARALLELISM": "false"}


def with_allocator() -> None:
    """Start this program again with `ALLOCATOR`, unless it has been: malloc reads it at the start only."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})


def status(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS, VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 2**10


def reset_peak() -> None:
    """Make VmHWM begin again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def in_own_process(work: Callable, *arguments):
    """`work(*arguments)` in a forked process, whose imports are this one's; returns its result.

    Raises RuntimeError when the process ended without one.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run():
        with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
            sender.send(work(*arguments))

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__}{arguments[:1]} failed; its error is above") from None
    finally:
        process.join()
