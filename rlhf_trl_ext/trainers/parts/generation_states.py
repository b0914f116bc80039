"""A policy's hidden states of its completions, kept from their generation instead of computed a second time."""

import torch
from torch import Tensor

READ = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


class GenerationStates:
    """Mixin of `trl.GRPOTrainer`: generation calls the policy once for every token, which is all that states need."""

    _last_states: list[Tensor] = []

    def wants_states(self) -> bool:
        """Whether the states of what is generated now will be asked for."""
        raise NotImplementedError

    def _generate_single_turn(self, *args, **kwargs):
        if not self.wants_states():
            return super()._generate_single_turn(*args, **kwargs)
        self._last_states = []  # the state (B, H) before every token
        handle = self.prefix_values.backbone.register_forward_hook(
            lambda module, inputs, outputs: self._last_states.append(outputs.last_hidden_state[:, -1])
        )
        try:
            return super()._generate_single_turn(*args, **kwargs)
        finally:
            handle.remove()

    @torch.no_grad()
    def states(self, batch: dict) -> Tensor:
        """`(B, T, H)` before every token of a batch, which is the last one generated, perhaps with other rows added.

        Computed anew for rows that were not generated here, and where generation was not one call of transformers'.
        """
        rows, width = batch["completion_ids"].shape
        if not (self.args.use_vllm or self.use_transformers_continuous_batching or self.tools):
            states = torch.stack(self._last_states[:width], dim=1)
            if states.shape[:2] == (rows, width):
                return states
        with self.accelerator.autocast():
            parts = zip(*(batch[name].split(self.args.per_device_train_batch_size) for name in READ), strict=True)
            return torch.cat([self.prefix_values.states(dict(zip(READ, part, strict=True))) for part in parts])
