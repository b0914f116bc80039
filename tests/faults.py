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
