"""Save and stop when a scheduler takes the machine back."""

import logging
import signal
import threading

import torch
from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class Preemption(TrainerCallback):
    """Ends training after the step during which SIGTERM or SIGHUP came to any process, with a checkpoint of that step.

    Used as a context around `trainer.train()`, in which it handles both signals (not those that are ignored, as by
    nohup). `signal`: the number of the one that ended training, else None. With several processes, all of them agree
    after every step, by one all-reduce of an integer between CPUs.
    """

    def __init__(self):
        self.signal: int | None = None
        self._received = 0
        self._handlers: dict[int, object] = {}
        self._group = None

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number in self._handlers:  # what was set while trainers were built, as by enable_jit_checkpoint, ends too
            signal.signal(number, signal.SIG_DFL)

    def _receive(self, number: int, _frame) -> None:
        self._received = number

    def on_train_begin(self, args, state, control, **kwargs):
        if args.world_size > 1 and torch.distributed.is_initialized():
            self._group = torch.distributed.new_group(backend="gloo")

    def on_step_end(self, args, state, control, **kwargs):
        received = self._received
        if self._group is not None:
            agreed = torch.tensor(received)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._group)
            received = int(agreed)
        if received:
            self.signal = received
            control.should_save = control.should_training_stop = True
