"""Log-probabilities of completions where TRL's chunked LM head has no kernel."""

import torch
from trl.trainer.utils import entropy_from_logits, selective_log_softmax


class CompletionLogprobs:
    """A mixin for `trl.GRPOTrainer`: on a CPU, only completions pass through the LM head, and once.

    TRL 1.16 projects in tiles, made for Triton. Without Triton the tiles cover the prompts as well, and are computed a
    second time for the backward pass. The values are the same up to rounding.
    """

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        inputs = (input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy)
        if input_ids.device.type != "cpu" or kwargs.get("compute_aux_loss") or self._is_vlm:
            return super()._get_per_token_logps_and_entropies(model, *inputs, **kwargs)
        logprobs, entropies = [], []
        size = batch_size or len(input_ids)
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            extra = {"logits_to_keep": logits_to_keep, "use_cache": False}
            with self.accelerator.autocast():  # the last token predicts nothing
                logits = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], **extra).logits.float()  # (B, T, V)
            logits = logits if self.temperature == 1 else logits / self.temperature
            logprobs.append(selective_log_softmax(logits, ids[:, -logits_to_keep:]))
            if compute_entropy:
                with torch.set_grad_enabled(torch.is_grad_enabled() and self._entropy_bonus_enabled):
                    entropies.append(entropy_from_logits(logits))
        return torch.cat(logprobs), torch.cat(entropies) if compute_entropy else None, None
