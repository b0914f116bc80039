"""TRL's batch with groups of earlier batches in it: taken apart, put together, and measured."""

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


def merged(fresh: dict, groups: list[Group], kept: Tensor, pad_token_id: int) -> dict:
    """The `kept` rows of a batch, and after them those of `drawn`, whose clip centre is the policy that sampled them.

    fresh: TRL's batch with `rewards`, `is_replay` and `importance_weights`, `(B,)`. kept: `(B,)` bool.
    """
    rows = {name: value for name, value in fresh.items() if value.dim()}
    if not groups:
        return rows
    padding = {"prompt_ids": pad_token_id, "completion_ids": pad_token_id, "tool_mask": 1}  # as TRL pads
    device = fresh["rewards"].device
    old = {name: value.to(device) for name, value in join([group.rows for group in groups], padding).items()}
    old["is_replay"] = torch.ones_like(old["rewards"], dtype=torch.bool)
    old["importance_weights"] = torch.ones_like(old["rewards"])
    old["old_per_token_logps"] = old["sampling_per_token_logps"]
    if "importance_sampling_ratio" in fresh:  # vLLM's correction, which our weights contain
        width = fresh["importance_sampling_ratio"].shape[1]
        old["importance_sampling_ratio"] = torch.ones_like(old["sampling_per_token_logps"])[:, :width]
    return join([{name: value[kept] for name, value in rows.items()}, old], padding)


class ReplayRecords:
    """Logs, over all processes: `replay/*` once a generation batch, and losses of fresh and of replayed rows apart.

    replay/size, n_groups: groups kept and drawn by a process. staleness_mean, staleness_max: in generation batches.
    use_count: draws so far of the groups drawn. is_mean, is_max: weights; frac_capped: changed by a bound. ess:
    effective share of the ratios. kl_behav_theta: mean of `log mu - log prox` over tokens, estimating KL(mu || prox).
    skipped: whether ess_min turned the drawn groups away. frac_reward_zero_std: groups of equal rewards in the batch
    that is learnt from (TRL's metric of this name: among fresh groups). loss/fresh, loss/replay: the clipped surrogate
    per token, without the KL term; clip_ratio/fresh, clip_ratio/replay: the share of tokens that clipping cuts off.
    tokens/sampled, tokens/trained: completion tokens since the beginning, each pass over a token counted.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokens = {"sampled": 0, "trained": 0}

    def record_batch(self, fresh: dict, batch: dict, replayed: list) -> None:
        """fresh: what was sampled; batch: what is learnt from; drawn: the groups that were drawn for it."""
        ages = [self.buffer.age(group) for group in replayed]
        equal = equal_rewards(batch["rewards"], self.num_generations).float()
        skipped = bool(replayed) and batch is fresh
        counts = [
            len(self.buffer),
            len(replayed),
            sum(ages),
            sum(group.uses for group in replayed),
            float(skipped),
            1.0,
        ]
        sums = torch.tensor(counts, device=equal.device)
        tokens = torch.stack([token_mask(fresh).sum(), token_mask(batch).sum()])
        sums = self.total(torch.cat([sums, equal.sum()[None], equal.new_tensor([len(equal)]), tokens]))
        size, groups, age, uses, skipped, world, flat, count, sampled, trained = sums.tolist()
        oldest = self.accelerator.gather(torch.tensor([max(ages, default=0)], device=equal.device)).max().item()
        self.tokens["sampled"] += round(sampled)
        self.tokens["trained"] += round(trained) * self.num_iterations
        metrics = {"size": size / world, "n_groups": groups / world, "skipped": float(skipped > 0)}
        metrics |= {"frac_reward_zero_std": flat / count}
        if groups:
            metrics |= {"staleness_mean": age / groups, "staleness_max": oldest, "use_count": uses / groups}
        self._show(metrics)

    def record_weights(self, ratios, weights, rows, share: float, differences, mask) -> None:
        """rows: which ratios are of replayed samples. differences: `log mu - log prox (B, T)`, where mask counts."""
        changed = (ratios != weights) & rows
        sums = [(weights * rows).sum(), changed.sum(), rows.sum(), (differences * mask).sum(), mask.sum()]
        total, capped, count, divergence, tokens = self.total(torch.stack([x.float() for x in sums])).tolist()
        largest = self.accelerator.gather((weights * rows).max()).max().item()
        metrics = {"is_mean": total / max(count, 1), "is_max": largest, "frac_capped": capped / max(count, 1)}
        self._show({**metrics, "ess": share, "kl_behav_theta": divergence / max(tokens, 1)})

    @torch.no_grad()
    def record_loss(self, inputs: dict, logprobs: Tensor) -> None:
        """logprobs: of the policy that learns, `(B, T)`."""
        advantages, mask = inputs["advantages"], token_mask(inputs)
        advantages = advantages[:, None] if advantages.dim() == 1 else advantages
        ratio = (logprobs - inputs["old_per_token_logps"]).exp()
        free, clipped = ratio * advantages, ratio.clamp(1 - self.epsilon_low, 1 + self.epsilon_high) * advantages
        sums = []
        for rows in (~inputs["is_replay"], inputs["is_replay"]):
            counted = mask * rows[:, None]
            loss = -torch.minimum(free, clipped)
            sums += [(loss * counted).sum(), ((clipped < free) * counted).sum(), counted.sum()]
        sums = self.total(torch.stack([value.float() for value in sums])).tolist()
        for name, (loss, cut, count) in (("fresh", sums[:3]), ("replay", sums[3:])):
            if count:
                self._metrics["train"][f"loss/{name}"].append(loss / count)
                self._metrics["train"][f"clip_ratio/{name}"].append(cut / count)

    def _show(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics["train"][f"replay/{name}"].append(value)

    def log(self, logs, start_time=None):
        if self.tokens["sampled"] and self.model.training:
            logs.update({f"tokens/{name}": count for name, count in self.tokens.items()})
        super().log(logs, start_time)

    def resume_state(self) -> dict:
        return {**super().resume_state(), "tokens": dict(self.tokens)}

    def load_resume_state(self, state: dict) -> None:
        super().load_resume_state(state)
        self.tokens.update(state["tokens"])
