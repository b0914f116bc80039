"""Losses per token of a whole optimizer batch, so that micro-batches, accumulation and processes do not matter."""

from dataclasses import dataclass

import torch

from rlhf_trl_ext.trainers.parts.online import choice
from rlhf_trl_ext.trainers.parts.replayed_batch import token_mask

POLICY, VALUE = "policy_share", "value_share"


@dataclass
class NormalizationArguments:
    """What losses are averaged over; mixed into a subclass of `trl.GRPOConfig`."""

    loss_normalization: str = choice(
        ("optimizer_batch", "micro_batch"),
        "Over whose tokens loss_type=bnpo and a value loss are means.",
    )


class OptimizerBatchLoss:
    """A mixin for `trl.GRPOTrainer`: the means over the tokens of a micro-batch become means over the optimizer batch.

    TRL averages `loss_type=bnpo` over each micro-batch and process and then over these, whereby a token of a short
    completion can count several times as much as another one. Its other losses are sums over rows or over tokens
    divided by what all parts have in common, and need nothing. Every part of a sampled batch gets two numbers by which
    its means are multiplied: its share of the tokens (`policy_share`) and of the valued states (`value_share`), times
    the number of parts. Where an optimizer batch is no part of one sampled batch, which it cannot know, as many tokens
    are taken as its parts have on average.
    """

    def _prepare_inputs(self, generation_batch):
        batch = super()._prepare_inputs(generation_batch)
        if self.model.training and self.args.loss_normalization == "optimizer_batch" and POLICY not in batch:
            self._add_shares(self._buffered_inputs)
        return batch

    def _add_shares(self, parts: list[dict]) -> None:
        masks = [(token_mask(part), part.get("value_mask", token_mask(part))) for part in parts]
        counts = torch.stack([torch.stack([mask.sum() for mask in pair]) for pair in masks]).float()  # (parts, 2)
        whole, accumulated = self.total(counts), self.args.gradient_accumulation_steps
        if len(parts) % accumulated == 0:
            whole = whole.view(-1, accumulated, 2).sum(dim=1).repeat_interleave(accumulated, dim=0)
        else:
            whole = whole.mean(dim=0, keepdim=True) * accumulated
        shares = counts * accumulated * self.accelerator.num_processes / whole.clamp(min=1)
        for part, (policy, value) in zip(parts, shares.expand(len(parts), 2), strict=True):
            part.update({POLICY: policy, VALUE: value})

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        return loss * inputs[POLICY] if self.loss_type == "bnpo" and POLICY in inputs else loss
