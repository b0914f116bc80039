"""What all trainers that sample share: checked arguments, a reward for every row, log-probs, an adapted KL coefficient.

Whatever concerns sampling and holds for GRPO, RLOO, PPO, off-policy GRPO and GRPO-VI alike belongs here, or in a mixin
that `Online` inherits from.
"""

import contextlib
import logging
import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from transformers import TrainingArguments
from trl.trainer.utils import entropy_from_logits, get_config_model_id, selective_log_softmax

from rlhf_trl_ext.callbacks.kl_control import AdaptiveKL
from rlhf_trl_ext.callbacks.records import generations
from rlhf_trl_ext.configuration.paths import adapter_folder, split_revision
from rlhf_trl_ext.configuration.ranges import refusal
from rlhf_trl_ext.models.pretrained import load_classifier
from rlhf_trl_ext.rewards.model import check_reward_model
from rlhf_trl_ext.trainers.parts.compiled_generation import CompiledGeneration
from rlhf_trl_ext.trainers.parts.length_sorting import LengthSorting
from rlhf_trl_ext.trainers.parts.resume import ExactResume
from rlhf_trl_ext.trainers.parts.shared_base import AdapterReward
from rlhf_trl_ext.trainers.parts.vllm_engine import check_length_and_seed, unpacked_on_cpu

logger = logging.getLogger(__name__)


def number(default, low: float, high: float, text: str, *words: str):
    """A dataclass field whose value lies between low and high, both allowed, or is one of `words`."""
    return field(default=default, metadata={"help": text, "range": (low, high), "words": words})


def choice(allowed: tuple[str, ...], text: str, default: str | None = None):
    """A dataclass field with a closed set of values; the default is the first."""
    return field(default=default or allowed[0], metadata={"help": text, "choices": allowed})


@dataclass
class OnlineArguments:
    """Arguments of every trainer that samples; mixed into a subclass of `trl.GRPOConfig` or `trl.RLOOConfig`.

    `renamed` has, for names that other libraries use, what to give instead. Raises ValueError for a value outside the
    range or the choices that its field states, TypeError for such a name.
    """

    kl_target: float | None = number(None, 1e-9, math.inf, "Nats per sequence that the KL coefficient is adapted to.")
    kl_horizon: float = number(10_000, 1e-9, math.inf, "Sequences; the larger, the slower it adapts.")
    compiled_generation: str = choice(("auto", "on", "off"), "auto: on CUDA, where a run is long enough to pay for it.")

    renamed = {}  # not annotated: no field

    def __new__(cls, *args, **kwargs):
        refuse_renamed(cls, kwargs)
        return super().__new__(cls)

    def __post_init__(self):
        if isinstance(self.compiled_generation, bool):  # as YAML reads on and off
            self.compiled_generation = "on" if self.compiled_generation else "off"
        for entry in fields(self):
            value, allowed = getattr(self, entry.name), entry.metadata.get("choices")
            if "range" in entry.metadata and (refused := refusal(type(self), entry.name, value)):
                raise ValueError(f"{entry.name}={value}: {refused}.")
            if isinstance(allowed, tuple) and value not in allowed:
                raise ValueError(f"{entry.name}={value}: allowed are {', '.join(allowed)}.")
        super().__post_init__()


def refuse_renamed(owner: type, arguments) -> None:
    """Raises TypeError with today's names if some of the names `given` are in `owner.renamed`."""
    known = [f"{name}: {owner.renamed[name]}" for name in arguments if name in owner.renamed]
    if known:
        raise TypeError(f"{owner.__name__} has other names: {'; '.join(known)}.")


class Online(CompiledGeneration, LengthSorting, ExactResume):
    """Mixin of TRL's online trainers.

    Batches have one key more than TRL's: `rewards (B,)`, the weighted sum over the reward functions, NaN where none
    gave a finite number. Such a number that is not finite is a row without a reward, as None is in TRL, and counted in
    `rewards/<function>/missing`. Reward models must have a head of one label; an adapter on one is loaded and merged.

    config_class: of `args`, and made with its defaults when none are given. takes_trl_args: whether TRL's own do too.
    """

    config_class: type
    takes_trl_args = False
    renamed = {}

    def __init__(self, model, reward_funcs=None, args=None, **kwargs):
        name = type(self).__name__
        if isinstance(model, TrainingArguments):
            raise TypeError(f"{name}: the first argument is the model; give the configuration as args=.")
        refuse_renamed(type(self), kwargs)
        if args is None:
            path = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self.config_class(f"{path.split('/')[-1]}-{self._name}")
        if not (isinstance(args, self.config_class) or self.takes_trl_args):
            raise TypeError(f"{name}: args is a {type(args).__name__}; give a {self.config_class.__name__}.")
        with unpacked_on_cpu(args):
            super().__init__(model, _loaded(reward_funcs), args, **kwargs)
        if args.use_vllm and args.vllm_mode == "colocate":
            check_length_and_seed(self)
        for function in self.reward_funcs:
            if isinstance(function, AdapterReward):
                function.attach(self.model, self.processing_class)
        self.kl_control = None
        if getattr(args, "kl_target", None) is not None:
            self.kl_control = AdaptiveKL(self, args.kl_target, args.kl_horizon)
            self.add_callback(self.kl_control)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        try:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        except Exception as error:
            error.add_note(f"Raised while scoring completions with reward_funcs={self.reward_func_names}.")
            raise
        missing, infinite = (~rewards.isfinite()).sum(dim=0).tolist(), rewards.isinf()  # (B of all processes, K)
        for name, count in zip(self.reward_func_names, missing, strict=True):
            if count:
                self._metrics["train" if self.model.training else "eval"][f"rewards/{name}/missing"].append(count)
        if infinite.any():
            if self.accelerator.is_main_process:
                logger.warning(
                    "step %d: %d rewards are infinite, and count as none.", self.state.global_step, infinite.sum()
                )
            rewards = rewards.masked_fill(infinite, torch.nan)
        return rewards

    def _generate_and_score_completions(self, inputs):
        with results_of(self, "_calculate_rewards") as calls:
            batch = super()._generate_and_score_completions(inputs)
        rewards = calls[-1]  # (B of all processes, K)
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        total[rewards[:, self.reward_weights != 0].isnan().all(dim=1)] = torch.nan  # of weight 0: it watches only
        start = self.accelerator.process_index * len(inputs)
        return {**batch, "rewards": total[start : start + len(inputs)]}

    def completion_logprobs(self, batch: dict) -> Tensor:
        """Log-probs of the completions under the policy of now, `(B, T)`, without gradients, in mini-batches."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)  # (B, P + T)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        width, size = batch["completion_ids"].shape[1], self.args.per_device_train_batch_size
        with torch.no_grad():
            return self._get_per_token_logps_and_entropies(self.model, ids, attention, width, batch_size=size)[0]

    def sampled_batches(self) -> int:
        """Generation batches sampled so far."""
        return generations(self.args, self.state.global_step)

    def total(self, values: Tensor) -> Tensor:
        """Sum over processes."""
        return self.accelerator.reduce(values, reduction="sum")

    def record(self, metrics: dict[str, Tensor]) -> None:
        """Log scalars, averaged over processes, as metrics of the current mode."""
        kept = self._metrics["train" if self.model.training else "eval"]
        means = self.accelerator.reduce(torch.stack([m.float() for m in metrics.values()]), reduction="mean")
        for name, value in zip(metrics, means.tolist(), strict=True):
            kept[name].append(value)


def _loaded(reward_funcs):
    """Reward models that are named are checked, and adapters loaded; functions and modules are passed on."""
    if isinstance(reward_funcs, list):
        return [_loaded(function) for function in reward_funcs]
    if not isinstance(reward_funcs, str):
        return reward_funcs
    check_reward_model("reward_funcs", reward_funcs)
    by_name = adapter_folder(reward_funcs) is None and split_revision(reward_funcs)[1] is None
    return reward_funcs if by_name else load_classifier(reward_funcs)


@contextlib.contextmanager
def results_of(owner, name: str):
    """While inside, what the method `owner.name` returns is also appended to the list that this yields."""
    attributes, function, results = vars(owner).copy(), getattr(owner, name), []

    def kept(*args, **kwargs):
        results.append(function(*args, **kwargs))
        return results[-1]

    setattr(owner, name, kept)
    try:
        yield results
    finally:
        if name in attributes:
            setattr(owner, name, attributes[name])
        else:
            delattr(owner, name)


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
