"""GRPO-VI: GRPO whose advantages come from fitted soft value iteration over the prefixes of its completions.

Name and definition are this project's own; no publication has them. For every batch of groups, with critic V:
1. `delta_t = V(s_{t+1}) - V(s_t)`, at the last token `R - V(s_t)`, and `A^VI_t = sum_{l >= t} lambda^(l - t) delta_l`,
   by the critic as it is before it sees these rewards. Unlike GRPO's, it differs between the tokens of a completion
   and does not vanish where all rewards of a group are equal (there it counts `vi_equal_groups`).
2. `A_t = (1 - kappa) A^GRPO + kappa w A^VI_t / rms(A^VI)`, rms a running one, w a replayed row's weight; TRL's loss.
3. The critic makes `vi_sweeps` sweeps of `V <- eta log E exp(return / eta)` over this batch and the last `vi_buffer`
   ones, by LINEX regression on lambda-returns in the space of exp(. / eta), V within the rewards seen. A finite eta
   values a prefix by what can be reached from it, not by what the policy makes of it: right without reward noise.
With `vi_adapt` the evidence on the critic (`functional/value_statistics.py: Reliability`) decides how far it is
followed: kappa becomes `kappa trust`, lambda `1 - (1 - lambda) trust`. An unreliable critic gives GRPO, and after
`vi_give_up` batches in a row with a trust below 0.05 none is fitted any more.
kappa = 0 or no sweeps is GRPO bit for bit; `replay_ratio` above 0 adds off-policy GRPO's replay.
"""

import logging
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from rlhf_trl_ext.functional.policy_gradient import length_adaptive_lambda
from rlhf_trl_ext.functional.value_iteration import root_mean_square, value_advantages
from rlhf_trl_ext.functional.value_statistics import Reliability, group_statistics, value_statistics
from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer
from rlhf_trl_ext.trainers.parts.critic import CriticArguments, CriticMixin, critic_folder
from rlhf_trl_ext.trainers.parts.online import choice, number
from rlhf_trl_ext.trainers.parts.prefix_values import generation_states, load_prefix_values
from rlhf_trl_ext.trainers.parts.replayed_batch import token_mask
from rlhf_trl_ext.trainers.parts.value_fitting import ValueFitting

logger = logging.getLogger(__name__)

FITTING = "value_fitting.pt"
GIVEN_UP = (
    "vi/trust was below 0.05 for args.vi_give_up=%d batches: GRPO goes on without a critic; "
    "start it from a reward model with args.critic_path, or give args.vi_give_up=null."
)
READ = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


@dataclass
class GRPOVIConfig(CriticArguments, OffPolicyGRPOConfig):
    """`OffPolicyGRPOConfig`, without replay by default, and value iteration; rewards need no particular scale."""

    replay_ratio: float = number(0.0, 0, 8, "Groups replayed for each fresh one.")
    vi_coef: float = number(1.0, 0, 1, "kappa, the share of A^VI in the advantage.")
    vi_lambda: float | str = number("auto", 0, 1, "Of A^VI; auto: 1 - 1 / (0.05 length), from 0.8.", "auto")
    vi_adapt: str = choice(("none", "mixture", "lambda", "both"), "What follows the critic's trust.", "both")
    vi_give_up: int | None = number(50, 1, inf, "Batches without trust (0.05) before GRPO goes on without a critic.")
    vi_equal_groups: float = number(1.0, 0, 1, "Share of A^VI where a group's rewards are all equal.")
    vi_pretrain: int = number(0, 0, inf, "Batches that only the critic learns from, the policy's advantages being 0.")
    vi_value_model: str = choice(("model", "head"), "head: linear, on detached states of the policy.")
    vi_temperature: float | str = number("auto", 1e-9, inf, "eta, in reward units; inf: policy evaluation.", "auto")
    vi_target_lambda: float | str = number("auto", 0, 1, "Of the targets; auto: 1 - 1 / length, from 0.9.", "auto")
    vi_sweeps: int = number(1, 0, inf, "Over a batch and the buffer; an optimizer step for each.")
    vi_sweep_batches: float | None = number(
        1.5, 1, inf, "Batches in a sweep: the new one, others drawn, half of one for .5; null: the whole buffer."
    )
    vi_buffer: int = number(4, 0, inf, "Earlier batches that the critic goes on learning from.")
    vi_linex_clip: float | str = number("auto", 1, 20, "Errors / eta above are linear; auto: range / eta.", "auto")
    critic_learning_rate: float | None = field(default=None, metadata={"help": "null: five times the policy's."})
    critic_max_grad_norm: float | None = number(
        None, 0, inf, "null: max_grad_norm; 0: no clipping. Clipped at 1, values of rare rewards can stay low."
    )

    def __post_init__(self):
        if self.vi_value_model == "head" and (self.critic_path or self.critic_shares_base):
            raise ValueError("vi_value_model=head loads no model: leave critic_path and critic_shares_base out.")
        if self.critic_learning_rate is None:
            self.critic_learning_rate = 5 * self.learning_rate
        if self.critic_max_grad_norm is None:
            self.critic_max_grad_norm = self.max_grad_norm
        super().__post_init__()


class GRPOVITrainer(CriticMixin, OffPolicyGRPOTrainer):
    """`OffPolicyGRPOTrainer` with only its advantages mixed with those of value iteration, and a critic that learns."""

    config_class = GRPOVIConfig
    _tag_names = ["trl", "grpo-vi"]
    _name = "GRPO-VI"

    def __init__(self, model, reward_funcs=None, args=None, **kwargs):
        super().__init__(model, reward_funcs, args, **kwargs)
        args, self.fitting = self.args, None
        if not (args.vi_coef and args.vi_sweeps):
            return
        self.prefix_values = load_prefix_values(self, kwargs.get("peft_config"), kwargs.get("quantization_config"))
        self.attach_critic(self.prefix_values.critic, learns_with_policy=False)
        self.fitting = ValueFitting(self.prefix_values, self.values, args, self.total, args.per_device_train_batch_size)
        self.reliability, self.vi_batches = Reliability(), 0

    def values(self, batch):
        with self.accelerator.autocast():
            return self.prefix_values(batch)

    def _generate_and_score_completions(self, inputs):
        if self.fitting is None or not self.model.training or self.has_given_up:
            return super()._generate_and_score_completions(inputs)
        with generation_states(self, self.prefix_values) as states:
            batch = super()._generate_and_score_completions(inputs)
        eta = self.args.vi_temperature
        temperature = self.reliability.temperature() if eta == "auto" else float(eta)
        read = self._valued(batch, states)
        bounds = self.reliability.bounds(self.accelerator.gather(batch["rewards"]))
        values, fit = self.fitting.sweep(read, temperature, bounds, ~batch["is_replay"])
        self._mix(batch, values * read["value_mask"], read["value_mask"], {**fit, "temperature": temperature})
        self.vi_batches += 1
        if self.has_given_up:
            logger.warning(GIVEN_UP, self.args.vi_give_up)
        return batch

    @property
    def has_given_up(self) -> bool:
        args = self.args
        follows = args.vi_give_up is not None and args.vi_adapt in ("mixture", "both")
        return follows and self.vi_batches > args.vi_pretrain and self.reliability.doubts >= args.vi_give_up

    @torch.no_grad()
    def _valued(self, batch: dict, states: list[Tensor]) -> dict:
        """What the critic is fitted to: rewards, the states that it values, and what it reads.

        states: of the tokens generated, each `(B, H)`.
        """
        mask = token_mask(batch)  # (B, T)
        valued = mask * ~batch["rewards"].isnan()[:, None]
        read = {"rewards": batch["rewards"].nan_to_num(), "value_mask": valued, "token_mask": mask}
        read |= {name: batch[name] for name in READ}
        if self.args.vi_value_model == "model":
            return read
        return {name: read[name] for name in read if name not in READ[:2]} | {"states": self._states(batch, states)}

    def _states(self, batch: dict, generated: list[Tensor]) -> Tensor:
        """`(B, T, H)` before every token: those that generation went through, or computed anew.

        Anew where rows were replayed, or generation was compiled or not one call of transformers'.
        """
        rows, width = batch["completion_ids"].shape
        if len(generated) >= width and not self.tools:
            states = torch.stack(generated[:width], dim=1)
            if states.shape[:2] == (rows, width):
                return states
        with self.accelerator.autocast():
            parts = zip(*(batch[name].split(self.args.per_device_train_batch_size) for name in READ), strict=True)
            return torch.cat([self.prefix_values.states(dict(zip(READ, part, strict=True))) for part in parts])

    @torch.no_grad()
    def _mix(self, batch: dict, values: Tensor, mask: Tensor, fit: dict) -> None:
        """Replace GRPO's advantages by the mixture `(B, T)`.

        values, mask: `(B, T)`, 0 where no state is valued. fit: metrics of the critic's fit, which are logged too.
        """
        args, rewards = self.args, batch["rewards"].nan_to_num()
        unseen = batch["rewards"].masked_fill(batch["is_replay"], torch.nan)
        widest = self.accelerator.pad_across_processes(torch.stack([values, mask], dim=2), dim=1)  # (B, T, 2)
        seen = self.accelerator.gather((unseen, widest))
        self.reliability.observe(seen[0], *seen[1].unbind(dim=2), self.num_generations)
        trust = self.reliability.trust
        rows = slice(self.accelerator.process_index * len(rewards), (self.accelerator.process_index + 1) * len(rewards))
        groups = group_statistics(self.accelerator.gather(batch["rewards"]), self.num_generations)
        means, equal = (of_all[rows] for of_all in groups)
        lam = length_adaptive_lambda(mask, low=0.8) if args.vi_lambda == "auto" else args.vi_lambda
        lam = 1 - (1 - lam) * trust if args.vi_adapt in ("lambda", "both") else lam
        advantages = value_advantages(rewards, values, mask, lam)
        advantages *= torch.where(equal, args.vi_equal_groups, 1.0)[:, None]
        scale = self.reliability.scale(root_mean_square(advantages, mask, self.total))
        advantages = advantages / (scale + 1e-4)
        of_grpo, weights = (batch[name].view(len(mask), -1) for name in ("advantages", "importance_weights"))
        metrics = value_statistics(values, rewards, advantages, of_grpo, mask, means, equal, self.total)
        share = args.vi_coef * (trust if args.vi_adapt in ("mixture", "both") else 1.0)
        if self.vi_batches < args.vi_pretrain:
            share, batch["advantages"] = 0.0, torch.zeros_like(advantages)
        elif share:
            batch["advantages"] = ((1 - share) * of_grpo + share * weights * advantages) * mask
        metrics |= {**fit, "adv_rms": scale, "trust": trust, "noise": self.reliability.noise}
        for name, value in {**metrics, "mixture": share, "lambda": torch.as_tensor(lam).mean()}.items():
            self._metrics["train"][f"vi/{name}"].append(float(value))

    def resume_state(self):
        state = super().resume_state()
        if self.fitting is None:
            return state
        own = {"batches": self.vi_batches, "buffer": list(self.fitting.buffer), "reliability": self.reliability.state()}
        return {**state, "value_iteration": own}

    def load_resume_state(self, state):
        super().load_resume_state(state)
        if self.fitting is not None:
            own = state["value_iteration"]
            self.vi_batches = own["batches"]
            self.reliability.load_state(own["reliability"])
            self.fitting.fill(own["buffer"], self.accelerator.device)

    def _load_critic(self, checkpoint):
        super()._load_critic(checkpoint)
        self.prefix_values.load_gains(critic_folder(self.critic, checkpoint))

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if self.fitting is not None and self.args.should_save:
            self.prefix_values.save_gains(output_dir or self.args.output_dir)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.fitting is not None and self.args.should_save:
            torch.save(self.fitting.state(), Path(output_dir, FITTING))

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        if self.fitting is None or checkpoint is None:
            return
        if not Path(checkpoint, FITTING).exists():
            raise ValueError(f"{checkpoint} has no {FITTING}: it was saved without value iteration; start a new run.")
        self._load_critic(checkpoint)  # DeepSpeed's own checkpoints are without
        self.fitting.load_state(torch.load(Path(checkpoint, FITTING), map_location="cpu", weights_only=True))
