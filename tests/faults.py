"""Faults that a test plants in real training."""

import os
import time

import torch
from transformers import TrainerCallback


class Fault(TrainerCallback):
    """At the end of the second step: seed 3 crashes, seed 6 hangs, seed 9 asks for more memory than there is."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step < 2 or "FAULTS_MENDED" in os.environ:
            return
        if self.seed == 3:
            raise RuntimeError("a planted crash")
        if self.seed == 6:
            time.sleep(10_000)
        if self.seed == 9:
            torch.empty(2**50)


class SignalAt(TrainerCallback):
    """Sends this process a signal at the end of a step, once."""

    def __init__(self, step: int, number: int):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step and "FAULTS_MENDED" not in os.environ:
            os.kill(os.getpid(), self.number)


class StopAt(TrainerCallback):
    """Ends training at the end of a step, for a reason or for none."""

    def __init__(self, step: int, reason: str | None = None):
        self.step, self.reason, self.stopped = step, reason, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.stopped, control.should_training_stop = self.reason, True


class NotANumber(TrainerCallback):
    """Makes one parameter NaN at the end of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            next(model.parameters()).data.fill_(float("nan"))
