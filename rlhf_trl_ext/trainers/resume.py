"""Resume at any checkpoint as if the run had not been interrupted."""

import logging
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


class ExactResume:
    """A mixin for TRL's online trainers: a checkpoint also holds what they keep in memory between two samplings.

    TRL loses the sampled batch of which a part is still to be learnt from, counts its steps from 0 again, and forgets
    metrics that are not logged yet; so its resumed runs are exact only between two samplings. Every process saves its
    own share beside its random state. Subclasses and callbacks add to it by `resume_state` and `load_resume_state`.
    """

    def resume_state(self) -> dict:
        """What this process needs besides weights, optimizer and random state: tensors and plain data only."""
        return {
            "step": self._step,
            "buffer": self._buffered_inputs,
            "metrics": {name: list(values) for name, values in self._metrics["train"].items()},
            "loss": self._tr_loss,
            "last_logged": self._globalstep_last_logged,
            "callbacks": {type(c).__name__: c.resume_state() for c in self._resumable_callbacks()},
        }

    def load_resume_state(self, state: dict) -> None:
        """Take over what `resume_state` returned."""
        device = self.accelerator.device
        self._step, self._buffered_inputs = (
            state["step"],
            [_to(batch, device) for batch in state["buffer"] or []] or None,
        )
        self._metrics["train"].update(state["metrics"])
        self._tr_loss, self._globalstep_last_logged = state["loss"].to(device), state["last_logged"]
        for callback in self._resumable_callbacks():
            callback.load_resume_state(state["callbacks"][type(callback).__name__])

    def _resumable_callbacks(self) -> list:
        return [c for c in self.callback_handler.callbacks if hasattr(c, "resume_state")]

    def _resume_file(self, folder: str) -> Path:
        return Path(folder) / f"resume_{self.args.process_index}.pt"

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        torch.save(self.resume_state(), self._resume_file(output_dir))

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
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
