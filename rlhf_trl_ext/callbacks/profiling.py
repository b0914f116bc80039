"""Where a step's time and memory go: `profile=on`. Off, nothing of it is loaded."""

import contextlib
import functools
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from trl.extras.profiling import ProfilingContext

from rlhf_trl_ext.callbacks import profile_report
from rlhf_trl_ext.callbacks.attached import AttachedCallback
from rlhf_trl_ext.callbacks.phases import OUTSIDE, PhaseTimer
from rlhf_trl_ext.callbacks.records import peak_memory_mb
from rlhf_trl_ext.quantities import Natural

# Methods of TRL's trainers and of this project's; a trainer has some of them.
METHODS = {
    "get_batch_samples": "data",
    "_generate": "generate",
    "_calculate_rewards": "score",
    "compute_ref_log_probs": "reference",
    "compute_loss": "forward",
    "values_in_mini_batches": "forward",
    "_clip_grad_norm": "optimizer",
    "evaluate": OUTSIDE,
    "_save_checkpoint": OUTSIDE,
}


class Profiler(AttachedCallback):
    """Writes `profile.json`, `.txt`, a Chrome trace and stacks for speedscope to `args.output_dir`.

    profile.json: `steps`; `step_seconds`, mean; `phases`, seconds of a mean step by `phases.PHASES`; `memory_mb` by
    role; `suggestions`. A step is all between two ends of steps but evaluations and checkpoints. What TRL profiles
    itself, each reward function for one, are frames within a phase. On CUDA every change of phase waits for the device.

    skip: steps not counted, in which caches fill. operators: steps after those that torch.profiler records as well,
    each operator, in `profile_operators.json`; slow, and large. The main process's figures.
    """

    def __init__(self, skip: Natural = 1, operators: Natural = 0):
        self.skip, self.left = skip, operators
        self.timer = PhaseTimer(settle=torch.cuda.synchronize if torch.cuda.is_available() else None)
        self.steps, self.seconds, self.memory, self.operators = 0, 0.0, {}, None

    def attach(self, trainer) -> None:
        """Time the methods of this trainer."""
        super().attach(trainer)
        self._time(trainer, METHODS)
        trainer.training_step = self._with_frames_of_trl(trainer.training_step)
        self._time(trainer, {"_get_per_token_logps_and_entropies": self._whose})
        self._time(trainer.accelerator, {"backward": "backward"})
        if trainer.accelerator.num_processes > 1:
            self._time(trainer.accelerator, dict.fromkeys(("gather", "reduce", "gather_for_metrics"), "sync"))
        if getattr(trainer, "vllm_generation", None) is not None:
            self._time(trainer.vllm_generation, {"sync_weights": "sync"})
        if getattr(trainer, "fitting", None) is not None:  # a critic that is fitted apart has a loop of its own
            self._time(trainer.fitting, {"step": "forward", "_backward": "backward", "_update": "optimizer"})
        reference = getattr(trainer, "ref_model", None)
        if reference is not None:
            reference.register_forward_pre_hook(lambda *_: self.timer.enter("reference", "reference"))
            reference.register_forward_hook(lambda *_: self.timer.leave(), always_call=True)

    def _time(self, owner, phases: dict) -> None:
        for name, phase in phases.items():
            if hasattr(owner, name):
                setattr(owner, name, self.timer.timed(getattr(owner, name), phase))

    def _whose(self, model, *args, **kwargs) -> str:
        """Phase of a forward pass: with LoRA the reference is the policy with other adapters, or none."""
        if model is getattr(self.trainer, "ref_model", None):
            return "reference"
        layer = next((m for m in model.modules() if isinstance(m, BaseTunerLayer)), None)
        return (
            "reference"
            if layer is not None and (layer.disable_adapters or "ref" in layer.active_adapters)
            else "forward"
        )

    def _with_frames_of_trl(self, step):
        """A training step in which all that TRL profiles itself is a frame."""

        @functools.wraps(step)
        def profiled(*args, **kwargs):
            with frames_of_trl(self.timer):
                return step(*args, **kwargs)

        return profiled

    def on_epoch_begin(self, args, state, control, **kwargs):
        if not self.steps:
            self.timer.reset()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if not self.memory:
            self.memory = {"gradients": profile_report.gradients_mb(self.trainer)}
        self.timer.enter("optimizer", "optimizer")

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.timer.leave()

    def on_step_end(self, args, state, control, **kwargs):
        now = self.timer.charge()
        self.steps += 1
        if self.steps == self.skip:
            self.timer.reset()
            now = self.timer.start
            self.memory |= profile_report.memory_by_role(self.trainer)
        self._trace_operators(Path(args.output_dir))
        self.seconds = now - self.timer.start - self.timer.phases[OUTSIDE]
        self.counted = dict(self.timer.phases)

    def _trace_operators(self, folder: Path) -> None:
        if self.operators is not None and not self.left:
            self.operators.__exit__(None, None, None)
            self.operators.export_chrome_trace(str(folder / "profile_operators.json"))
            self.operators = None
        if self.left and self.steps >= self.skip:
            self.left -= 1
            if self.operators is None:
                self.operators = torch.profiler.profile(with_stack=False)
                self.operators.__enter__()

    def on_train_end(self, args, state, control, **kwargs):
        if self.operators is not None:
            self.left = 0
            self._trace_operators(Path(args.output_dir))
        steps = self.steps - self.skip
        if steps > 0 and state.is_world_process_zero:
            self.memory["peak"] = peak_memory_mb()
            summary = profile_report.summary(steps, self.seconds, self.counted, self.memory)
            profile_report.write(Path(args.output_dir), summary, self.timer)


@contextlib.contextmanager
def frames_of_trl(timer: PhaseTimer):
    """While inside, TRL's profiling contexts are frames of `timer`; its class is what it was afterwards."""
    enter, leave = ProfilingContext.__enter__, ProfilingContext.__exit__

    @functools.wraps(enter)
    def entered(context):
        timer.enter(context.name.rpartition(".")[2])
        return enter(context)

    @functools.wraps(leave)
    def left(context, *error):
        timer.leave()
        return leave(context, *error)

    ProfilingContext.__enter__, ProfilingContext.__exit__ = entered, left
    try:
        yield
    finally:
        ProfilingContext.__enter__, ProfilingContext.__exit__ = enter, leave
