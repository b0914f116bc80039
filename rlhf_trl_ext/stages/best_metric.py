"""The metric that chooses the best checkpoint, checked before training: what an evaluation measures, only it knows."""

from collections.abc import Sized

from rlhf_trl_ext.callbacks.held_out import random_state
from rlhf_trl_ext.configuration.checks import ConfigError


def check_best_metric(trainer) -> None:
    """Raises ConfigError where `args.metric_for_best_model` is nothing that an evaluation of this run measures.

    One batch is evaluated, without a trace in training, where the name is neither the loss nor a reward's. Left to the
    first evaluation: DeepSpeed, which cannot evaluate before it trains, and data sets without a length.
    """
    args, rows = trainer.args, trainer.eval_dataset
    if args.metric_for_best_model is None or args.eval_strategy == "no" or args.deepspeed:
        return
    metric = args.metric_for_best_model.removeprefix("eval_")
    rewards = {f"rewards/{name}/mean" for name in getattr(trainer, "reward_func_names", ())}
    if metric in {"loss", "reward", *rewards} or not isinstance(rows, Sized) or not hasattr(rows, "select"):
        return
    handler = trainer.callback_handler
    callbacks, handler.callbacks = handler.callbacks, []  # none of them sees this evaluation
    try:
        with random_state(args.seed):
            few = rows.select(range(min(len(rows), args.per_device_eval_batch_size * args.world_size)))
            measured = trainer.evaluate(few)
    finally:
        handler.callbacks = callbacks
    if f"eval_{metric}" not in measured:
        timing = ("runtime", "per_second", "_time", "epoch")
        names = sorted(name.removeprefix("eval_") for name in measured if not name.endswith(timing))
        raise ConfigError(
            f"args.metric_for_best_model={args.metric_for_best_model}: an evaluation of this run measures none of this "
            f"name; give one of {', '.join(names)}."
        )
