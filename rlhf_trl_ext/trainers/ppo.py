"""PPO: TRL's GRPOTrainer with a critic (Schulman et al., arXiv:1707.06347; details of Huang et al., arXiv:2403.17031).

1. The advantage of a token comes from a critic by GAE, not from a group of completions; it is whitened over the batch.
2. The divergence from the reference is part of the reward of every token; the loss has no KL term.
3. The critic learns in the same steps as the policy, by a clipped squared error.
4. Scores are centred and scaled if asked for (`parts/scores.py`); a truncated completion loses `missing_eos_penalty`.
5. Gradients of policy and critic are clipped apart (`parts/critic.py`).
Everything else (sampling, ratio clipping, reference, reward functions, PEFT, vLLM, DeepSpeed) is TRL's.

TRL had a PPO up to 1.12. From the same batch this one computes the same but for three things. A completion's score is
paid at its last token; TRL 1.12 paid it one step after the end-of-sequence token, where no action is taken any more
(`score_placement=trl_phantom` does so). Advantages are whitened over all processes; TRL 1.12 whitened them in each.
Losses are means over the tokens of an optimizer batch; TRL 1.12's are means of the means of its parts, which with
unequal lengths differ with the number of parts (`loss_normalization=micro_batch` does so).
"""

from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from rlhf_trl_ext.functional.policy_gradient import (
    clipped_value_loss,
    explained_variance,
    gae,
    kl_estimate,
    last_token,
    length_adaptive_lambda,
    masked_mean,
    policy_statistics,
    whiten,
    with_phantom,
)
from rlhf_trl_ext.trainers.parts.online import (
    CompletionLogprobs,
    Online,
    OnlineArguments,
    choice,
    number,
    results_of,
)
from rlhf_trl_ext.trainers.parts.optimizer_batch import VALUE, NormalizationArguments, OptimizerBatchLoss
from rlhf_trl_ext.trainers.parts.scores import ScoreArguments, ScoredCritic

PASS = "_get_per_token_logps_and_entropies"
# Names of TRL's PPO up to 1.12 and of its first one, of the configuration and of the trainer alike.
RENAMED = {
    **dict.fromkeys(("num_ppo_epochs", "ppo_epochs"), "give num_iterations"),
    "cliprange": "give epsilon",
    "response_length": "give max_completion_length",
    "total_episodes": "give max_steps (optimizer steps) or num_train_epochs",
    "num_mini_batches": "give steps_per_generation (batches of a sampling) and gradient_accumulation_steps",
    **dict.fromkeys(("batch_size", "mini_batch_size"), "give per_device_train_batch_size and steps_per_generation"),
    "local_rollout_forward_batch_size": "give per_device_train_batch_size, which passes without gradients follow",
    "num_sample_generations": "give log_completions=True",
    **dict.fromkeys(("stop_token", "stop_token_id"), "leave it out, completions end at the model's end tokens"),
    "whiten_rewards": "give score_center='reference' and score_scale='reference'",
    "init_kl_coef": "give kl_coef",
    **dict.fromkeys(("target", "adap_kl_ctrl"), "give kl_target"),
    "horizon": "give kl_horizon",
    **dict.fromkeys(("sft_model_path", "policy", "policy_model"), "give model, the trainer's first argument"),
    **dict.fromkeys(("reward_model", "reward_model_path"), "give reward_funcs, an argument of the trainer"),
    "value_model": "give critic_path, an argument of the configuration",
    "ref_model": "leave it out, it is the model that training starts from (kl_coef=0: none)",
    **dict.fromkeys(("model_adapter_name", "ref_adapter_name"), "leave it out, the reference has the adapter off"),
    "tokenizer": "give processing_class",
    "config": "give args",
    "dataset": "give train_dataset",
    "data_collator": "leave it out, prompts are tokenised when they are sampled for",
}


@dataclass
class PPOConfig(ScoreArguments, NormalizationArguments, OnlineArguments, GRPOConfig):
    """`trl.GRPOConfig` with PPO's arguments; the table in README.md has the names of earlier versions of TRL."""

    num_iterations: int = 4
    num_generations: int = 2  # PPO knows no groups; TRL demands two
    loss_type: str = "bnpo"
    scale_rewards: str = "none"
    disable_dropout: bool = True
    ddp_find_unused_parameters: bool | None = False  # the critic runs outside DDP's forward
    kl_coef: float = number(0.05, 0, inf, "Weight of the divergence in the reward; becomes `beta`.")
    kl_estimator: str = choice(("k1", "k3"), "Of the divergence in the reward.")
    gamma: float = number(1.0, 0, 1, "Discount of a token.")
    lam: float = number(0.95, 0, 1, "Lambda of GAE.")
    length_adaptive_lambda: bool = field(default=False, metadata={"help": "VAPO: lam by length; 1 for the returns."})
    vf_coef: float = number(0.1, 0, inf, "Weight of the value loss.")
    cliprange_value: float | None = number(0.2, 1e-9, inf, "Change of a value that the loss rewards; null: any.")
    value_warmup_steps: int = number(0, 0, inf, "Optimizer steps in which only the critic learns.")
    missing_eos_penalty: float = number(1.0, 0, inf, "Taken off the score of a truncated completion.")
    score_placement: str = choice(("last", "trl_phantom"), "Where a completion's score is paid.")

    renamed = RENAMED

    def __post_init__(self):
        if self.beta not in (0.0, self.kl_coef):
            raise ValueError(f"beta={self.beta}: PPO's KL coefficient is kl_coef; leave beta out.")
        if self.value_warmup_steps and self.weight_decay:
            raise ValueError(f"weight_decay={self.weight_decay}: give 0, or it moves the policy in value_warmup_steps.")
        self.beta = self.kl_coef
        super().__post_init__()


class PPOTrainer(ScoredCritic, OptimizerBatchLoss, Online, CompletionLogprobs, GRPOTrainer):
    """`trl.GRPOTrainer` with only the changes above. The critic starts from `args.critic_path`.

    Batches have four keys of `(B, T)` more than TRL's: `values`, `returns`, `value_mask` (where the value loss counts)
    and `old_per_token_logps` in every batch; and, from the mixins, `rewards` `(B,)` and the batch's shares of the
    optimizer batch. `self.scores` is of `parts/scores.py`, `self.values` of `parts/critic.py`, `self.total` and
    `self.kl_control` of `parts/online.py`.
    """

    config_class, renamed = PPOConfig, RENAMED
    _tag_names = ["trl", "ppo"]
    _name = "PPO"
    _paper = {"title": "Proximal Policy Optimization Algorithms", "id": "1707.06347"}

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        if "old_per_token_logps" not in batch:  # TRL leaves them out where the ratio would be 1
            batch["old_per_token_logps"] = self.completion_logprobs(batch)
        batch["values"] = self.values_in_mini_batches(batch)
        self._add_advantages(batch)
        return batch

    def _add_advantages(self, batch: dict) -> None:
        """Replace TRL's advantages (B,) by GAE's (B, T); add returns and the mask of the value loss."""
        args, ids = self.args, batch["completion_ids"]
        last_ids = (ids * last_token(batch["completion_mask"])).sum(dim=1)
        ended = torch.isin(last_ids, torch.tensor(self.eos_token_ids, device=ids.device))  # (B,)
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)  # (B, T)
        scores = self.scores(batch)  # (B,)
        valid = ~scores.isnan() & mask.any(dim=1)  # (B,)
        scores = torch.where(valid, scores - args.missing_eos_penalty * (~ended), 0.0)
        logprobs = batch["old_per_token_logps"]
        ref_logprobs = batch.pop("ref_per_token_logps", logprobs)
        penalty = -self.beta * kl_estimate(logprobs, ref_logprobs, args.kl_estimator) * mask
        value_mask = (with_phantom(mask) if args.score_placement == "trl_phantom" else mask) * valid[:, None]
        rewards = penalty + scores[:, None] * last_token(value_mask)
        values = batch["values"] * value_mask
        lam = length_adaptive_lambda(value_mask) if args.length_adaptive_lambda else args.lam
        advantages, returns = gae(rewards, values, value_mask, args.gamma, lam)
        if args.length_adaptive_lambda:
            returns = gae(rewards, values, value_mask, args.gamma, 1.0)[1]
        batch["advantages"] = whiten(advantages, mask * valid[:, None], self.total)
        batch.update(values=values, returns=returns, value_mask=value_mask)
        kl = ((logprobs - ref_logprobs) * mask).sum(dim=1)
        self._record_objective(valid, ended, scores, kl, penalty.sum(dim=1), -(logprobs * mask).sum(dim=1))

    def _record_objective(self, valid, ended, scores, kl, penalty, entropy):
        """Means over the sequences of all processes; all arguments `(B,)`."""
        rows = {
            "objective/kl": kl,
            "objective/entropy": entropy,
            "objective/non_score_reward": penalty,
            "objective/rlhf_reward": scores + penalty,
            "objective/scores": scores,
        }
        sums = self.total(torch.stack([*(x[valid].sum() for x in rows.values()), valid.sum(), ended.sum()]))
        *sums, sequences, eos_tokens = sums.tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in zip(rows, sums, strict=True):
            metrics[name].append(value / max(sequences, 1))
        metrics["objective/kl_coef"].append(self.beta)
        metrics["val/num_eos_tokens"].append(eos_tokens)
        if self.kl_control and self.model.training:
            self.kl_control.update(metrics["objective/kl"][-1], int(sequences))

    def _compute_loss(self, model, inputs):
        beta, self.beta = self.beta, 0.0  # the divergence is in the reward
        try:
            with results_of(self, PASS) as passes:
                policy_loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        logprobs = passes.pop()[0].detach()  # (B, T)
        training = self.model.training
        warms_up = training and self.state.global_step < self.args.value_warmup_steps
        # The policy's backward pass runs in here, so that its gradient can be clipped before the critic's is added.
        loss = self.learn_before_critic(0 * policy_loss if warms_up else policy_loss)
        parts = (inputs["values"], inputs["returns"], inputs["value_mask"])
        values = self.values(inputs)
        value_loss, value_clipped = clipped_value_loss(values, *parts, self.args.cliprange_value)
        value_loss = value_loss * inputs.get(VALUE, 1.0)  # this micro-batch's share of the optimizer batch
        accumulated = self.current_gradient_accumulation_steps if training else 1  # the policy's loss is divided by it
        whole_loss = policy_loss.detach() * accumulated
        self._record_update(inputs, logprobs, values.detach(), whole_loss, value_loss, value_clipped)
        return loss + self.args.vf_coef * value_loss / accumulated

    @torch.no_grad()
    def _record_update(self, inputs, logprobs, values, policy_loss: Tensor, value_loss: Tensor, value_clipped: Tensor):
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        ratio = (logprobs, inputs["old_per_token_logps"], inputs["advantages"])
        statistics = policy_statistics(*ratio, mask, self.epsilon_low, self.epsilon_high)
        metrics = {
            "policy/approxkl_avg": statistics["approxkl"],
            "policy/clipfrac_avg": statistics["clipfrac"],
            "loss/policy_avg": policy_loss,
            "loss/value_avg": value_loss,
            "val/clipfrac_avg": value_clipped,
            "val/ratio": statistics["ratio"],
            "val/ratio_var": statistics["ratio_var"],
            "val/mean": masked_mean(values, inputs["value_mask"]),
            "val/explained_variance": explained_variance(inputs["values"], inputs["returns"], inputs["value_mask"]),
        }
        entropies = self._metrics["train" if self.model.training else "eval"]["entropy"]
        self.record({**metrics, "policy/entropy_avg": value_loss.new_tensor(entropies[-1])})

    def log(self, logs, start_time=None):
        if "learning_rate" in logs:
            logs.update(lr=logs["learning_rate"], episode=self.sampled_batches() * self.args.generation_batch_size)
        super().log(logs, start_time)
