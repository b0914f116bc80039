"""What makes a training run finished: every step, or a stop for a stated reason, and weights that are numbers."""

import signal
import sys

import torch
from torch.distributed.tensor import DTensor
from transformers import EarlyStoppingCallback

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.guard import Terminated


class Preempted(Terminated):
    """Training was ended by a signal and has saved; the exit code is 128 + signal (143: Slurm's RequeueExit)."""

    def __init__(self, number: int, trainer):
        state, name = trainer.state, signal.Signals(number).name
        if state.is_world_process_zero:
            print(
                f"{name}: saved at step {state.global_step} of {state.max_steps} in {trainer.args.output_dir}; "
                "the same command goes on from there.",
                file=sys.stderr,
            )
        super().__init__(128 + number)


def stop_reason(trainer) -> str | None:
    """Why a run that is finished took fewer than its `max_steps`; None where it took all.

    A callback that ends training says why in its attribute `stopped`. Raises ConfigError for a run that is not
    finished: no step, fewer for no reason, or weights that are not finite.
    """
    state = trainer.state
    if state.global_step == 0:
        raise ConfigError(
            f"no step was taken (max_steps={state.max_steps}): check args.max_steps, args.num_train_epochs and "
            "args.gradient_accumulation_steps, and that the dataset has rows."
        )
    broken = non_finite(trainer)
    if broken:
        raise ConfigError(
            f"{broken} of the model hold NaN or infinite weights after step {state.global_step}: nothing is recorded. "
            f"Lower args.learning_rate={trainer.args.learning_rate:g} or args.max_grad_norm; monitor=standard tells "
            "where it begins."
        )
    if state.global_step >= state.max_steps:
        return None
    reasons = filter(None, map(_reason, trainer.callback_handler.callbacks))
    if (reason := next(reasons, None)) is None:
        raise ConfigError(
            f"training ended after {state.global_step} of {state.max_steps} steps, and no callback gives a reason "
            "(attribute `stopped`): the run is not finished; the same command goes on from the last checkpoint."
        )
    return reason


def _reason(callback) -> str | None:
    if isinstance(callback, EarlyStoppingCallback):
        patience = callback.early_stopping_patience
        return "early stopping" if callback.early_stopping_patience_counter >= patience else None
    return getattr(callback, "stopped", None)


def non_finite(trainer) -> str:
    """How many parameters of `trainer.model` are not finite in some process, as "2 of 9 parameters"; "" for none."""
    parameters = [_local(parameter) for parameter in trainer.model.parameters() if parameter.is_floating_point()]
    broken = sum(not torch.isfinite(parameter).all() for parameter in parameters)
    device = trainer.accelerator.device
    most = int(trainer.accelerator.gather(torch.tensor([int(broken)], device=device)).max())
    return f"{most} of {len(parameters)} parameters" if most else ""


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """The share of this process, where ZeRO-3 or FSDP have split a parameter."""
    parameter = getattr(parameter, "ds_tensor", parameter)
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).detach()
