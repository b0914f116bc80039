"""Take a running trainer back to one of its checkpoints."""

from pathlib import Path


def last_before(folder: str, step: int) -> str | None:
    """The newest whole checkpoint of at most this step; None if there is none."""
    checkpoints = [path for path in Path(folder).glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    steps = {int(path.name.rpartition("-")[2]): path for path in checkpoints}
    return str(steps[max(n for n in steps if n <= step)]) if any(n <= step for n in steps) else None


def roll_back(trainer, checkpoint: str, factor: float) -> None:
    """Weights and optimizer of a checkpoint; the step goes on, with `factor` times the learning rate from here on.

    Completions that wait to be learnt from are given up: another policy sampled them.
    """
    schedule = trainer.lr_scheduler.state_dict()
    trainer._load_from_checkpoint(checkpoint)
    trainer._load_optimizer_and_scheduler(checkpoint)
    trainer.lr_scheduler.load_state_dict(schedule)
    scheduler = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
    scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    scheduler._last_lr = [rate * factor for rate in scheduler.get_last_lr()]  # which is what is logged
    for group, rate in zip(trainer.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    if getattr(trainer, "_buffered_inputs", None) is not None:
        trainer._buffered_inputs = None
