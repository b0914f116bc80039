"""End training when a budget is used, so that algorithms can be compared at equal cost."""

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from rlhf_trl_ext.callbacks.records import MetricsRecorder


class BudgetCallback(TrainerCallback):
    """Stops after the step at which `sampled_tokens` or `seconds` of training are used, whichever comes first.

    The recorder counts both, also over the sessions of an interrupted run, whenever the trainer logs; so every step is
    logged. A step is never cut: a run uses at most one generation batch more than its budget.

    sampled_tokens: completion tokens over all processes; what learns from a file samples none. Gradient steps are
    `args.max_steps`. Raises ValueError unless at least one of the two is given and both are above 0.
    """

    def __init__(
        self, recorder: MetricsRecorder, sampled_tokens: int | None = None, seconds: float | None = None
    ) -> None:
        limits = [value for value in (sampled_tokens, seconds) if value is not None]
        if not limits or min(limits) <= 0:
            raise ValueError(
                f"budget.sampled_tokens={sampled_tokens}, budget.seconds={seconds}: give one or both, above 0."
            )
        self.recorder, self.sampled_tokens, self.seconds = recorder, sampled_tokens, seconds
        self.stopped: str | None = None  # why training ended

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = True

    def on_log(self, args, state, control, **kwargs):
        tokens, seconds = self.recorder.sampled_tokens, self.recorder.seconds
        used = self.sampled_tokens is not None and tokens >= self.sampled_tokens
        used |= self.seconds is not None and seconds >= self.seconds
        (used,) = broadcast_object_list([used])  # the main process counts; the others stop at the same step
        if used:
            self.stopped = f"budget: {tokens} sampled tokens, {seconds:.0f} s"
            control.should_training_stop = True
