"""Passes without gradients over mini-batches of rows of about the same length, each cut to its own longest row."""

import torch
from torch import Tensor

WORTH = 0.9  # of the tokens: with less to be saved rows stay in order, and results those of TRL bit for bit


def length_sorted(mask: Tensor, size: int) -> list[tuple[Tensor, int]] | None:
    """Mini-batches of at most `size` rows, longest first: their places `(b,)` and the width that holds all of them.

    mask: `(B, T)`, 1 where a completion has a token. None where nothing is gained: at full width the mini-batches have
    hardly more tokens.
    """
    lengths = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1)  # place of the last token
    ordered, order = lengths.sort(descending=True, stable=True)
    widths = ordered[::size].clamp(min=1).tolist()
    rows = order.split(size)
    kept = sum(len(part) * width for part, width in zip(rows, widths, strict=True))
    return list(zip(rows, widths, strict=True)) if kept < WORTH * mask.numel() else None


class LengthSorting:
    """A mixin for `trl.GRPOTrainer` and `trl.RLOOTrainer`: old and reference log-probs by `length_sorted` rows.

    TRL pads every row to the longest completion of the whole generation batch. Left padding stays, as positions do.
    """

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        further = any(value is not None and value is not False for value in kwargs.values())  # images, router losses
        plain = not (torch.is_grad_enabled() or further)
        parts = None
        if plain and batch_size and batch_size < len(input_ids):
            parts = length_sorted(attention_mask[:, -logits_to_keep:], batch_size)
        if parts is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        shape = (len(input_ids), logits_to_keep)
        outputs = [torch.zeros(shape, device=input_ids.device) for _ in range(1 + compute_entropy)]
        prompt = input_ids.shape[1] - logits_to_keep
        for rows, width in parts:
            ids, mask = (tensor[rows, : prompt + width] for tensor in (input_ids, attention_mask))
            results = super()._get_per_token_logps_and_entropies(model, ids, mask, width, None, compute_entropy)
            for whole, part in zip(outputs, results, strict=False):
                whole[rows, :width] = part.float()
        return outputs[0], outputs[1] if compute_entropy else None, None
