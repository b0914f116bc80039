"""Off-policy GRPO: TRL's GRPOTrainer that also learns from groups it sampled some batches ago, or that others sampled.

1. Whole groups are kept with the log-probs, rewards and advantages of the time when they were sampled, and drawn again
   while they are at most `max_staleness` generation batches old (Mroueh et al., arXiv:2505.22257; RePO, 2506.09340).
2. Clipping is decoupled (Hilton et al., arXiv:2110.00641; AReaL, 2505.24298): with prox, the policy when the batch is
   put together, a drawn token's loss is `prox / mu * min(pi / prox A, clip(pi / prox) A)`. The first factor, bounded,
   is multiplied into the advantage, which is exact because it is not negative.
Sampling, rewards, loss types, reference, PEFT, vLLM and DeepSpeed are TRL's.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_trl_ext.functional.importance import LEVELS, MODES, bounded, effective_share, importance_ratios, tapered
from rlhf_trl_ext.replay import STRATEGIES, Group, ReplayBuffer, join, trimmed
from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer
from rlhf_trl_ext.trainers.replay_records import ReplayRecords, equal_rewards, token_mask
from rlhf_trl_ext.trainers.scores import RewardMixin

PLACEMENTS = ("add", "fill")
CAPS = {"token": 2.0, "sequence": 5.0, "geometric": 2.0}
# What a group is stored with. `sampling_per_token_logps`, TRL's name, are those of the policy that sampled it.
STORED = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages", "rewards")
STORED = (*STORED, "sampling_per_token_logps", "ref_per_token_logps")


@dataclass
class OffPolicyGRPOConfig(GRPOConfig):
    """`GRPOConfig` with a replay buffer; `off_policy_mask_threshold`, 0.5 say, is TRL's own sequence mask."""

    replay_ratio: float = field(default=1.0, metadata={"help": "Groups replayed for each fresh one; 0 is TRL's GRPO."})
    replay_mode: str = field(
        default="add",
        metadata={"choices": PLACEMENTS, "help": "add: to the batch. fill: in place of fresh groups of equal rewards."},
    )
    buffer_size: int = field(default=512, metadata={"help": "Groups kept by each process, at most."})
    min_buffer: int | None = field(default=None, metadata={"help": "Groups kept before replay; null: one batch's."})
    max_staleness: int = field(default=4, metadata={"help": "Age at which a group is dropped, in generation batches."})
    max_uses: int = field(default=2, metadata={"help": "How often one group is replayed."})
    replay_strategy: str = field(default="recency_variance", metadata={"choices": STRATEGIES})
    replay_alpha: float = field(default=1.0, metadata={"help": "Power of the spread, or of the reward."})
    replay_rho: float = field(default=0.8, metadata={"help": "Factor for each generation batch of age."})
    is_level: str = field(default="token", metadata={"choices": LEVELS})
    is_mode: str = field(default="truncate", metadata={"choices": MODES})
    is_cap: float | None = field(default=None, metadata={"help": "Largest weight; null: 2, for sequences 5."})
    is_floor: float | None = field(default=None, metadata={"help": "Smallest weight; null: 0, with is_mode=mask 0.5."})
    decoupled: bool = field(default=True, metadata={"help": "false: clip around the policy that sampled, weight 1."})
    topr_positives: bool = field(default=False, metadata={"help": "Weights 1 for A >= 0, at most 1 for the others."})
    ess_min: float = field(default=0.3, metadata={"help": "Effective share of samples below which none is replayed."})

    def __post_init__(self):
        super().__post_init__()
        self.is_cap = CAPS.get(self.is_level, 2.0) if self.is_cap is None else self.is_cap
        self.is_floor = (0.5 if self.is_mode == "mask" else 0.0) if self.is_floor is None else self.is_floor
        for name, allowed in (
            ("replay_mode", PLACEMENTS),
            ("replay_strategy", STRATEGIES),
            ("is_level", LEVELS),
            ("is_mode", MODES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {', '.join(allowed)}.")
        ranges = {"replay_ratio": (0, 8), "buffer_size": (1, None), "max_staleness": (1, None), "max_uses": (1, None)}
        ranges |= {"replay_alpha": (0, None), "replay_rho": (0.01, 1), "ess_min": (0, 1), "is_floor": (0, 1)}
        for name, (low, high) in {**ranges, "is_cap": (1, None)}.items():
            if not low <= getattr(self, name) <= (math.inf if high is None else high):
                limits = f"{low} or more" if high is None else f"{low} to {high}"
                raise ValueError(f"{name}={getattr(self, name)}: {limits} is allowed.")


class OffPolicyGRPOTrainer(ReplayRecords, RewardMixin, GRPOTrainer):
    """`trl.GRPOTrainer` with only the rows of its batches changed, between sampling and learning.

    Its batches have a few more keys than TRL's, for every row: `rewards (B,)`, `is_replay (B,)` and
    `importance_weights`, `(B,)` or `(B, T)`, which `advantages` are multiplied with.
    """

    _tag_names = ["trl", "grpo-offpolicy"]
    _name = "Off-policy GRPO"

    def __init__(self, model, reward_funcs=None, args=None, **kwargs):
        super().__init__(model, reward_funcs, args, **kwargs)
        self.buffer = None
        if args.replay_ratio > 0:
            self._check_setup()
            kept = (args.buffer_size, args.max_staleness, args.max_uses)
            drawn = (args.replay_strategy, args.replay_alpha, args.replay_rho)
            self.buffer = ReplayBuffer(*kept, *drawn, seed=args.seed + self.accelerator.process_index)

    def _check_setup(self) -> None:
        args = self.args
        rows = args.per_device_train_batch_size * args.steps_per_generation
        groups, left = divmod(rows, self.num_generations)
        # As many groups as keep the batch divisible into steps_per_generation parts.
        self._unit = args.steps_per_generation // math.gcd(args.steps_per_generation, self.num_generations)
        self._wanted = int(args.replay_ratio * groups + 1e-9)
        if left:
            raise ValueError(
                f"num_generations={self.num_generations}: a process samples {rows} completions at a time, and replay "
                "needs whole groups in a process; change per_device_train_batch_size or steps_per_generation."
            )
        if args.replay_mode == "add":
            self._wanted = self._wanted // self._unit * self._unit
        if self._wanted == 0:
            raise ValueError(
                f"replay_ratio={args.replay_ratio} of {groups} groups in a process is none, or cannot be divided among "
                f"steps_per_generation={args.steps_per_generation}: give more, or 0 for none."
            )
        if self._is_vlm or self.loss_type == "vespo" or args.sync_ref_model:
            raise ValueError("replay_ratio above 0 does not go with images, loss_type=vespo or sync_ref_model: give 0.")
        self._min_buffer = groups if args.min_buffer is None else args.min_buffer

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        batch["rewards"] = self._rewards  # (B,)
        batch["is_replay"] = torch.zeros_like(self._rewards, dtype=torch.bool)
        batch["importance_weights"] = torch.ones_like(batch["advantages"])
        if self.buffer is None or not self.model.training:
            return batch
        with torch.no_grad():
            return self._with_replay(batch)

    def _with_replay(self, fresh: dict) -> dict:
        """The batch to learn from; the fresh groups enter the buffer only after it is put together."""
        if "old_per_token_logps" not in fresh:  # TRL leaves them out where the ratio would be 1
            fresh["old_per_token_logps"] = self._logprobs(fresh)
        sampled = fresh.setdefault("sampling_per_token_logps", fresh["old_per_token_logps"])
        # vLLM gives no number for some tokens.
        fresh["sampling_per_token_logps"] = torch.where(sampled.isnan(), fresh["old_per_token_logps"], sampled)
        self.buffer.advance()
        equal = equal_rewards(fresh["rewards"], self.num_generations)  # (groups,)
        drawn, most = self._draw(len(equal) if self.args.replay_mode == "add" else int(equal.sum()))
        batch = fresh
        if most:  # on all processes or on none
            merged = self._merge(fresh, drawn, equal)
            self._refresh_logprobs(merged, most * self.num_generations)
            if self._weigh(merged) >= self.args.ess_min:
                batch = merged
        batch["num_items_in_batch"] = self.accelerator.gather(token_mask(batch).sum()).sum()
        self.record_batch(fresh, batch, drawn)
        self.buffer.add(self._groups(fresh))
        return batch

    def _draw(self, room: int) -> tuple[list[Group], int]:
        """At most `room` groups, with replay_mode=add equally many on all processes; and the most on any process."""
        ready = len(self.buffer) if len(self.buffer) >= self._min_buffer else 0
        count = min(self._wanted, room, ready)
        counts = self.accelerator.gather(torch.tensor([count], device=self.accelerator.device))
        if self.args.replay_mode == "add":
            count = int(counts.min()) // self._unit * self._unit
            return self.buffer.sample(count), count
        return self.buffer.sample(count), int(counts.max())

    def _merge(self, fresh: dict, drawn: list[Group], equal: Tensor) -> dict:
        """Fresh rows and drawn ones; with replay_mode=fill in place of groups of equal rewards."""
        rows = {name: value for name, value in fresh.items() if value.dim()}
        if not drawn:
            return {**fresh, **rows}
        padding = {name: self._tokenizer.pad_token_id for name in ("prompt_ids", "completion_ids")}
        padding["tool_mask"] = 1  # as TRL pads it
        device = self.accelerator.device
        old = {name: value.to(device) for name, value in join([g.rows for g in drawn], padding).items()}
        old["is_replay"] = torch.ones_like(old["rewards"], dtype=torch.bool)
        old["importance_weights"] = torch.ones_like(old["rewards"])
        old["old_per_token_logps"] = old["sampling_per_token_logps"]
        if "importance_sampling_ratio" in fresh:  # vLLM's correction, which the weights contain
            width = fresh["importance_sampling_ratio"].shape[1]
            old["importance_sampling_ratio"] = torch.ones_like(old["sampling_per_token_logps"])[:, :width]
        if self.args.replay_mode == "fill":
            kept = torch.ones_like(equal)
            kept[equal.nonzero()[: len(drawn), 0]] = False
            kept = kept.repeat_interleave(self.num_generations)
            rows = {name: value[kept] for name, value in rows.items()}
        return join([rows, old], padding)

    def _refresh_logprobs(self, batch: dict, count: int) -> None:
        """Log-probs of replayed rows under the policy of now; `count` rows, so that all processes do the same."""
        order = batch["is_replay"].int().argsort(descending=True, stable=True)[:count]
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        logprobs = batch["old_per_token_logps"].clone()
        logprobs[order] = self._logprobs({name: batch[name][order] for name in names})
        batch["old_per_token_logps"] = torch.where(batch["is_replay"][:, None], logprobs, batch["old_per_token_logps"])

    def _logprobs(self, batch: dict) -> Tensor:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        width, size = batch["completion_ids"].shape[1], self.args.per_device_train_batch_size
        return self._get_per_token_logps_and_entropies(self.model, ids, attention, width, batch_size=size)[0]

    def _weigh(self, batch: dict) -> float:
        """Multiply the weights of replayed rows into the advantages; returns the effective share of those rows."""
        args, advantages, replayed = self.args, batch["advantages"], batch["is_replay"]
        logprobs, mask = batch["old_per_token_logps"], token_mask(batch)
        ratios = importance_ratios(logprobs, batch["sampling_per_token_logps"], mask, args.is_level)
        rows = replayed[:, None] & mask.bool() if ratios.dim() == 2 else replayed
        weights = bounded(ratios, args.is_mode, args.is_cap, args.is_floor)
        if args.topr_positives:
            weights = tapered(weights, advantages)
        if not args.decoupled:
            batch["old_per_token_logps"] = torch.where(replayed[:, None], batch["sampling_per_token_logps"], logprobs)
            weights = torch.ones_like(weights)
        weights = torch.where(rows, weights, 1.0)
        share = effective_share(ratios, rows, self.total).item()
        batch["importance_weights"] = weights
        batch["advantages"] = (advantages[:, None] if weights.dim() == 2 else advantages) * weights
        self.record_weights(
            ratios, weights, rows, share, (batch["sampling_per_token_logps"] - logprobs), mask * replayed[:, None]
        )
        return share

    def _groups(self, fresh: dict) -> list[Group]:
        """The fresh groups as they are stored."""
        rows = {name: fresh[name].cpu() for name in STORED if name in fresh}
        size, world, now = self.num_generations, self.accelerator.num_processes, self.buffer.now
        count = len(rows["rewards"]) // size
        first = (now * world + self.accelerator.process_index) * count
        parts = ({name: value[i * size : (i + 1) * size] for name, value in rows.items()} for i in range(count))
        return [Group(trimmed(part), first + i, now) for i, part in enumerate(parts)]

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        self._latest_logprobs = result[0].detach()
        return result

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        if self.buffer is not None and self.model.training:
            self.record_loss(inputs, self._latest_logprobs)
        return loss

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.buffer is not None:
            self.buffer.save(output_dir, self.accelerator.process_index, self.accelerator.num_processes)

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        if self.buffer is not None and checkpoint is not None:
            self.buffer.load(checkpoint, self.accelerator.process_index, self.accelerator.num_processes)
