"""End a run that hangs, instead of waiting for ever."""

import faulthandler
import sys

from transformers import TrainerCallback


class Watchdog(TrainerCallback):
    """Ends the process, with exit code 1, when a step takes longer than `seconds`.

    Every process prints the stack of each of its threads to standard error first, so that one sees which rank waits for
    what. A step is all from the end of the last one: sampling, rewards and a checkpoint count as well.
    """

    def __init__(self, seconds: float):
        if seconds <= 0:
            raise ValueError(f"step_timeout={seconds}: a number of seconds above 0, or null, is allowed.")
        self.seconds = seconds

    def _start(self, *args, **kwargs):
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.__stderr__)

    on_train_begin = on_step_begin = on_step_end = on_evaluate = on_save = _start

    def on_train_end(self, *args, **kwargs):
        faulthandler.cancel_dump_traceback_later()
