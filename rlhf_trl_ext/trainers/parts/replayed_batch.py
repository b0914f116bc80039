"""TRL's batch of sampled completions: taken apart into groups, and put together with groups of earlier batches."""

import torch
from torch import Tensor

from rlhf_trl_ext.trainers.parts.replay import Group, join, trimmed

# What a group is stored with. `sampling_per_token_logps`, TRL's name, are those of the policy that sampled it.
STORED = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages", "rewards")
STORED = (*STORED, "sampling_per_token_logps", "ref_per_token_logps")


def token_mask(batch: dict) -> Tensor:
    """`(B, T)`: 1 where the loss counts a token."""
    return batch["completion_mask"] * batch.get("tool_mask", 1)


def equal_rewards(rewards: Tensor, num_generations: int) -> Tensor:
    """Whether a group's rewards do not differ, so that it teaches nothing; also if one is NaN. `(P * G,)` -> `(P,)`."""
    grouped = rewards.view(-1, num_generations)
    return ~(grouped.amax(dim=1) > grouped.amin(dim=1))


def groups_of(batch: dict, num_generations: int, first_key: int, step: int) -> list[Group]:
    """The groups of a batch whose rows are in the order in which TRL sampled them."""
    rows = {name: batch[name].cpu() for name in STORED if name in batch}
    starts = range(0, len(rows["rewards"]), num_generations)
    parts = ({name: value[start : start + num_generations] for name, value in rows.items()} for start in starts)
    return [Group(trimmed(part), first_key + place, step) for place, part in enumerate(parts)]


def merged(fresh: dict, drawn: list[Group], kept: Tensor, pad_token_id: int) -> dict:
    """The `kept` rows of a batch, and after them those of `drawn`, whose clip centre is the policy that sampled them.

    fresh: TRL's batch with `rewards`, `is_replay` and `importance_weights`, `(B,)`. kept: `(B,)` bool.
    """
    rows = {name: value for name, value in fresh.items() if value.dim()}
    if not drawn:
        return rows
    padding = {"prompt_ids": pad_token_id, "completion_ids": pad_token_id, "tool_mask": 1}  # as TRL pads
    device = fresh["rewards"].device
    old = {name: value.to(device) for name, value in join([group.rows for group in drawn], padding).items()}
    old["is_replay"] = torch.ones_like(old["rewards"], dtype=torch.bool)
    old["importance_weights"] = torch.ones_like(old["rewards"])
    old["old_per_token_logps"] = old["sampling_per_token_logps"]
    if "importance_sampling_ratio" in fresh:  # vLLM's correction, which our weights contain
        width = fresh["importance_sampling_ratio"].shape[1]
        old["importance_sampling_ratio"] = torch.ones_like(old["sampling_per_token_logps"])[:, :width]
    return join([{name: value[kept] for name, value in rows.items()}, old], padding)
