"""Resume at any checkpoint as if the run had not been interrupted."""

import logging
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


class ExactResume:
    """A mixin for TRL's trainers: a checkpoint also holds what they keep in memory only.

    TRL loses the sampled batch of which a part is still to be learnt from, counts steps and tokens from 0 again, and
    forgets metrics that are not logged yet. Every process saves its own share beside its random state. Subclasses and
    callbacks add to it by `resume_state` and `load_resume_state`.
    """

    _resumed_from: str | None = None

    def resume_state(self) -> dict:
        """What this process needs besides weights, optimizer and random state: tensors and plain data only."""
        return {
            "step": getattr(self, "_step", None),
            "buffer": getattr(self, "_buffered_inputs", None),
            "metrics": {name: list(values) for name, values in self._metrics["train"].items()},
            "tokens": self._total_train_tokens,
            "loss": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "callbacks": {type(c).__name__: c.resume_state() for c in self._resumable_callbacks()},
        }

    def load_resume_state(self, state: dict) -> None:
        """Take over what `resume_state` returned."""
        device = self.accelerator.device
        if state["step"] is not None:  # an online trainer
            self._step = state["step"]
            self._buffered_inputs = [_to(batch, device) for batch in state["buffer"] or []] or None
        self._metrics["train"].update(state["metrics"])
        self._total_train_tokens, self._total_loss_scalar = state["tokens"], state["total_loss"]
        self._tr_loss, self._globalstep_last_logged = state["loss"].to(device), state["last_logged"]
        for callback in self._resumable_callbacks():
            callback.load_resume_state(state["callbacks"][type(callback).__name__])

    def log(self, logs, start_time=None):
        if "train_loss" in logs:  # TRL divides by the steps since the run was resumed
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 0.001)
        super().log(logs, start_time)

    def _resumable_callbacks(self) -> list:
        return [c for c in self.callback_handler.callbacks if hasattr(c, "resume_state")]

    def _resume_file(self, folder: str) -> Path:
        return Path(folder) / f"resume_{self.args.process_index}.pt"

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        torch.save(self.resume_state(), self._resume_file(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        self._resumed_from = checkpoint

    def _run_epoch(self, *args, **kwargs):
        if self.state.global_step < self.state.max_steps:
            return super()._run_epoch(*args, **kwargs)
        self.control.should_training_stop = True  # resumed at the last step: transformers would run one more

    def _finalize_training(self, *args, **kwargs):
        if self._resumed_from is not None:  # resumed at the last step: no step has asked for the random state
            self._load_rng_state(self._resumed_from)
        return super()._finalize_training(*args, **kwargs)

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        self._resumed_from = None
        if checkpoint is None:
            return
        if self._resume_file(checkpoint).exists():
            self.load_resume_state(torch.load(self._resume_file(checkpoint), map_location="cpu", weights_only=True))
        else:
            logger.warning(
                "%s has no %s (saved by another trainer or number of processes): the resumed run is not exact.",
                checkpoint,
                self._resume_file(checkpoint).name,
            )


def _to(batch: dict, device: torch.device) -> dict:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
