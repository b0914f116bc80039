"""Off-policy GRPO: TRL's GRPOTrainer that also learns from groups it sampled some batches ago, or that others sampled.

1. Whole groups are kept with the log-probs, rewards and advantages of the time when they were sampled, and drawn again
   while they are at most `max_staleness` generation batches old (Mroueh et al., arXiv:2505.22257; RePO, 2506.09340).
2. Clipping is decoupled (Hilton et al., arXiv:2110.00641; AReaL, 2505.24298): with prox, the policy when the batch is
   put together, a drawn token's loss is `prox / mu * min(pi / prox A, clip(pi / prox) A)`. The first factor, bounded,
   is multiplied into the advantage, which is exact because it is not negative.
3. The KL penalty of a drawn token is weighted by `min(prox / mu, 1)`, without which a token that the policy has come to
   avoid outweighs the batch.
Sampling, rewards, loss types, reference, PEFT, vLLM and DeepSpeed are TRL's.
"""

import math
from dataclasses import dataclass, field

import torch

from rlhf_trl_ext.functional import importance
from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer
from rlhf_trl_ext.trainers.parts.online import choice, number, results_of
from rlhf_trl_ext.trainers.parts.optimizer_batch import NormalizationArguments, OptimizerBatchLoss
from rlhf_trl_ext.trainers.parts.past_completions import past_groups, read_past
from rlhf_trl_ext.trainers.parts.replay import STRATEGIES, Group, ReplayBuffer
from rlhf_trl_ext.trainers.parts.replayed_batch import ReplayRecords, equal_rewards, groups_of, merged, token_mask

PASS = "_get_per_token_logps_and_entropies"


@dataclass
class OffPolicyGRPOConfig(NormalizationArguments, GRPOConfig):
    """`GRPOConfig` with a replay buffer; `off_policy_mask_threshold`, 0.5 say, is TRL's own sequence mask."""

    disable_dropout: bool = True  # a ratio is between policies, not between draws of dropout
    replay_ratio: float = number(1.0, 0, 8, "Groups replayed for each fresh one; 0 is TRL's GRPO.")
    replay_mode: str = choice(("add", "fill"), "add: to the batch. fill: in place of groups of equal rewards.")
    buffer_size: int = number(512, 1, math.inf, "Groups kept by each process, at most.")
    min_buffer: int = number(1, 1, math.inf, "Groups that a process keeps before any is replayed.")
    max_staleness: int = number(4, 1, math.inf, "Age after which a group is dropped, in generation batches.")
    max_uses: int = number(2, 1, math.inf, "How often one group is replayed.")
    replay_strategy: str = choice(STRATEGIES, "Which groups are likely to be drawn, see ReplayBuffer.")
    replay_alpha: float = number(1.0, 0, math.inf, "Power of the spread, or of the reward, in replay_strategy.")
    replay_rho: float = number(0.8, 0.01, 1, "Factor for each generation batch of age in replay_strategy.")
    is_level: str = choice(importance.LEVELS, "Importance weights of tokens, of sequences, or their geometric mean.")
    is_mode: str = choice(importance.BOUNDS, "Weights outside the bounds are moved to them, or set to 0.")
    is_cap: float | None = number(None, 1, math.inf, "Largest weight; null: 2, for sequences 5.")
    is_floor: float | None = number(None, 0, 1, "Smallest weight; null: 0, with is_mode=mask 0.5.")
    decoupled: bool = field(default=True, metadata={"help": "false: clip around the policy that sampled, weight 1."})
    topr_positives: bool = field(default=False, metadata={"help": "Weights 1 for A >= 0, at most 1 for the others."})
    replay_data: str | None = field(
        default=None, metadata={"help": "File of past completions with rewards, put in the buffer before step 1."}
    )
    replay_data_policy: str | None = field(
        default=None, metadata={"help": "The model that sampled replay_data, where that holds no logprobs."}
    )
    ess_min: float = number(0.3, 0, 1, "Effective share of samples below which drawn groups are turned away.")

    def __post_init__(self):
        super().__post_init__()
        if self.replay_data is not None and self.replay_ratio == 0:
            raise ValueError(f"replay_data={self.replay_data} with replay_ratio=0: give a ratio above 0, or no data.")
        if self.is_cap is None:
            self.is_cap = 5.0 if self.is_level == "sequence" else 2.0
        if self.is_floor is None:
            self.is_floor = 0.5 if self.is_mode == "mask" else 0.0


class OffPolicyGRPOTrainer(ReplayRecords, OptimizerBatchLoss, GRPOTrainer):
    """`trl.GRPOTrainer` with only the rows of its batches changed, between sampling and learning.

    Its batches have two keys more than `GRPOTrainer`'s, for every row: `is_replay (B,)` and `importance_weights`,
    `(B,)` or `(B, T)`, which `advantages` are multiplied with.
    """

    config_class = OffPolicyGRPOConfig
    takes_trl_args = False
    _tag_names = ["trl", "grpo-offpolicy"]
    _name = "Off-policy GRPO"

    def __init__(self, model, reward_funcs=None, args=None, **kwargs):
        super().__init__(model, reward_funcs, args, **kwargs)
        args = self.args
        self.buffer, self._past = None, []
        if args.replay_data is not None:
            self._past = read_past(self, args.replay_data)
        if args.replay_ratio > 0:
            self._check_setup()
            kept = (args.buffer_size, args.max_staleness, args.max_uses)
            strategy = (args.replay_strategy, args.replay_alpha, args.replay_rho)
            self.buffer = ReplayBuffer(*kept, *strategy, seed=args.seed + self.accelerator.process_index)

    def _check_setup(self) -> None:
        args = self.args
        rows = args.per_device_train_batch_size * args.steps_per_generation
        groups, left = divmod(rows, self.num_generations)
        # As many groups as keep the batch divisible into steps_per_generation parts.
        self._unit = args.steps_per_generation // math.gcd(args.steps_per_generation, self.num_generations)
        self._replayed_groups = int(args.replay_ratio * groups + 1e-9)
        if left:
            raise ValueError(
                f"num_generations={self.num_generations}: a process samples {rows} completions at a time, and replay "
                "needs whole groups in a process; change per_device_train_batch_size or steps_per_generation."
            )
        if args.replay_mode == "add":
            self._replayed_groups = self._replayed_groups // self._unit * self._unit
        if self._replayed_groups == 0:
            raise ValueError(
                f"replay_ratio={args.replay_ratio} of {groups} groups in a process is none, or cannot be divided among "
                f"steps_per_generation={args.steps_per_generation}: give more, or 0 for none."
            )
        if self._is_vlm or self.loss_type == "vespo" or args.sync_ref_model:
            raise ValueError("replay_ratio above 0 does not go with images, loss_type=vespo or sync_ref_model: give 0.")
        truncation = {"top_p": 1.0, "top_k": 0, "min_p": None}
        cuts = [f"{name}={getattr(args, name)}" for name, none in truncation.items() if getattr(args, name) != none]
        if cuts and not args.use_vllm:  # which reports log-probs of what it sampled from
            raise ValueError(
                f"{', '.join(cuts)}: transformers samples from a truncated distribution, whose log-probs replay needs "
                "and does not have; leave it out, use vLLM, or give replay_ratio=0."
            )
        if len(self._past) > args.buffer_size * self.accelerator.num_processes:
            raise ValueError(
                f"buffer_size={args.buffer_size}: replay_data holds {len(self._past)} groups; make it larger."
            )

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        batch["is_replay"] = torch.zeros_like(batch["rewards"], dtype=torch.bool)
        batch["importance_weights"] = torch.ones_like(batch["advantages"])
        if self.buffer is None or not self.model.training:
            return batch
        with torch.no_grad():
            return self._with_replay(batch)

    def _with_replay(self, fresh: dict) -> dict:
        """The batch to learn from; the fresh groups enter the buffer only after it is put together."""
        args, groups = self.args, self.num_generations
        if "old_per_token_logps" not in fresh:  # TRL leaves them out where the ratio would be 1
            fresh["old_per_token_logps"] = self.completion_logprobs(fresh)
        sampled = fresh.setdefault("sampling_per_token_logps", fresh["old_per_token_logps"])
        # vLLM gives no number for some tokens.
        fresh["sampling_per_token_logps"] = torch.where(sampled.isnan(), fresh["old_per_token_logps"], sampled)
        if self.buffer.now == 0 and self._past:
            self.buffer.add(past_groups(self, self._past))
        self.buffer.advance()
        equal = equal_rewards(fresh["rewards"], groups)  # (P,)
        replayed, most = self._draw(len(equal) if args.replay_mode == "add" else int(equal.sum()))
        batch = fresh
        if most:  # on all processes or on none
            kept = torch.ones_like(equal)
            if args.replay_mode == "fill":
                kept[equal.nonzero()[: len(replayed), 0]] = False
            both = merged(fresh, replayed, kept.repeat_interleave(groups), self._tokenizer.pad_token_id)
            self._refresh_logprobs(both, most * groups)
            if self._weigh(both) >= args.ess_min:
                batch = both
            else:
                self.buffer.put_back(replayed)
        batch["num_items_in_batch"] = self.accelerator.gather(token_mask(batch).sum()).sum()
        self.record_batch(fresh, batch, replayed)
        first = (self.buffer.now * self.accelerator.num_processes + self.accelerator.process_index) * len(equal)
        self.buffer.add(groups_of(fresh, groups, first, self.buffer.now))
        return batch

    def _draw(self, room: int) -> tuple[list[Group], int]:
        """At most `room` groups, with replay_mode=add equally many on all processes; and the most on any process."""
        ready = len(self.buffer) if len(self.buffer) >= self.args.min_buffer else 0
        count = min(self._replayed_groups, room, ready)
        counts = self.accelerator.gather(torch.tensor([count], device=self.accelerator.device))
        if self.args.replay_mode == "add":
            count = int(counts.min()) // self._unit * self._unit
            return self.buffer.sample(count), count
        return self.buffer.sample(count), int(counts.max())

    def _refresh_logprobs(self, batch: dict, count: int) -> None:
        """Log-probs of replayed rows under the policy of now; `count` rows, so that all processes do the same."""
        order = batch["is_replay"].int().argsort(descending=True, stable=True)[:count]
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        logprobs = batch["old_per_token_logps"].clone()
        logprobs[order] = self.completion_logprobs({name: batch[name][order] for name in names})
        batch["old_per_token_logps"] = torch.where(batch["is_replay"][:, None], logprobs, batch["old_per_token_logps"])

    def _weigh(self, batch: dict) -> float:
        """Multiply the weights of replayed rows into the advantages; returns the effective share of those rows."""
        args, advantages, replayed = self.args, batch["advantages"], batch["is_replay"]
        logprobs, mask = batch["old_per_token_logps"], token_mask(batch)
        ratios = importance.importance_ratios(logprobs, batch["sampling_per_token_logps"], mask, args.is_level)
        rows = replayed[:, None] & mask.bool() if ratios.dim() == 2 else replayed
        weights = importance.bounded(ratios, args.is_mode, args.is_cap, args.is_floor)
        if args.topr_positives:
            weights = importance.tapered(weights, advantages)
        if "ref_per_token_logps" in batch:
            reference = batch["ref_per_token_logps"]
            weighted = importance.weighted_reference(reference, logprobs, batch["sampling_per_token_logps"])
            batch["ref_per_token_logps"] = torch.where(replayed[:, None], weighted, reference)
        share = importance.effective_share(weights, rows, self.total).item()
        if not args.decoupled:
            batch["old_per_token_logps"] = torch.where(replayed[:, None], batch["sampling_per_token_logps"], logprobs)
            weights = torch.ones_like(weights)
        weights = torch.where(rows, weights, 1.0)
        batch["importance_weights"] = weights
        batch["advantages"] = (advantages[:, None] if weights.dim() == 2 else advantages) * weights
        differences = batch["sampling_per_token_logps"] - logprobs
        self.record_weights(ratios, weights, rows, share, differences, mask * replayed[:, None])
        return share

    def _compute_loss(self, model, inputs):
        with results_of(self, PASS) as passes:
            loss = super()._compute_loss(model, inputs)
        if self.buffer is not None and self.model.training:
            self.record_loss(inputs, passes[-1][0].detach())
        return loss

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.buffer is not None:
            self.buffer.save(output_dir, self.accelerator.process_index, self.accelerator.num_processes)

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        if self.buffer is not None and checkpoint is not None:
            self.buffer.load(checkpoint, self.accelerator.process_index, self.accelerator.num_processes)
