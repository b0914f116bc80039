"""Where time goes: a stack of frames, each charged with what its inner frames do not take."""

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable

OTHER, OUTSIDE = "other", "outside"
PHASES = ("generate", "score", "reference", "forward", "backward", "optimizer", "sync", "data", OTHER)


class PhaseTimer:
    """Seconds by phase and by stack of frames; every moment belongs to one phase, so that they sum to the whole.

    clock: seconds. settle: called at every change of frame, to wait for an accelerator's queue; None: nothing waits.
    most: slices that are kept for the trace, the first ones.
    """

    def __init__(self, clock: Callable = time.perf_counter, settle: Callable | None = None, most: int = 50_000):
        self.clock, self.settle, self.most = clock, settle, most
        self.reset()

    def reset(self) -> None:
        """Forget all; the time until the first frame is `other`."""
        self.stack, self.begins = [("step", OTHER)], []
        self.phases, self.paths = defaultdict(float), defaultdict(float)
        self.slices = []  # (name, phase, start, seconds)
        self.start = self.last = self.clock()

    def charge(self) -> float:
        """Book the time since the last change to the frame on top; returns now."""
        if self.settle is not None:
            self.settle()
        now = self.clock()
        self.phases[self.stack[-1][1]] += now - self.last
        self.paths[tuple(name for name, _ in self.stack)] += now - self.last
        self.last = now
        return now

    def enter(self, name: str, phase: str | None = None) -> None:
        """phase: None for that of the frame around it, which is kept also while something generates."""
        around = self.stack[-1][1]
        self.begins.append(self.charge())
        kept = around in ("generate", OUTSIDE) and phase != "sync"
        self.stack.append((name, around if phase is None or kept else phase))

    def leave(self) -> None:
        """End the frame on top."""
        now, begin = self.charge(), self.begins.pop()
        name, phase = self.stack.pop()
        if len(self.slices) < self.most:
            self.slices.append((name, phase, begin - self.start, now - begin))

    @contextlib.contextmanager
    def frame(self, name: str, phase: str | None = None):
        self.enter(name, phase)
        try:
            yield
        finally:
            self.leave()

    def timed(self, function: Callable, phase: str | Callable, name: str | None = None) -> Callable:
        """The function as a frame. phase: its name, or a function of the arguments that gives it."""

        @functools.wraps(function)
        def timed(*args, **kwargs):
            with self.frame(name or function.__name__, phase(*args, **kwargs) if callable(phase) else phase):
                return function(*args, **kwargs)

        return timed
