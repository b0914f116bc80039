"""A critic beside a TRL trainer's policy: optimised, evaluated in mini-batches, saved and resumed."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import load_peft_weights, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from trl.trainer.utils import disable_dropout_in_model

from rlhf_trl_ext.trainers.parts.length_sorting import length_sorted
from rlhf_trl_ext.zero.runtime import whole_weights

NAME = "critic"


@dataclass
class CriticArguments:
    """Arguments of every algorithm with a critic; mixed into a subclass of `trl.GRPOConfig`."""

    critic_path: str | None = field(
        default=None,
        metadata={"help": "Reward model or saved critic to start from; null: the policy, with a head of zeros."},
    )
    critic_learning_rate: float | None = field(default=None, metadata={"help": "null: the policy's learning rate."})
    critic_shares_base: bool = field(
        default=False, metadata={"help": "With LoRA: critic and policy are adapters on the same frozen weights."}
    )


class CriticMixin:
    """Adds a critic to a subclass of `trl.GRPOTrainer`; call `attach_critic` after `super().__init__`.

    A critic that learns with the policy is a submodule of it, so that optimizer, processes, ZeRO and engine checkpoints
    treat it as theirs, while generation and the policy's forward do not see it. Gradients of both are clipped apart, as
    a critic's first ones would take all of the norm; DeepSpeed, which clips by itself, knows one norm only. The critic
    is saved in `<folder>/critic`, where `AutoModelForSequenceClassification` loads it (an adapter: in
    `<folder>/critic/adapter`, where `AutoPeftModelForSequenceClassification` does), never in the policy's own files.
    """

    critic = None

    def attach_critic(self, critic: nn.Module, learns_with_policy: bool = True) -> None:
        """Make `critic` the trainer's critic. Raises ValueError with FSDP or images, which are not supported."""
        if self.is_fsdp_enabled or self._is_vlm:
            raise ValueError("args.fsdp or a model with images is not supported by a critic: use DeepSpeed and text.")
        if self.args.disable_dropout:
            disable_dropout_in_model(critic)
        self.critic = critic
        if not learns_with_policy:
            return
        self.model.add_module(NAME, critic)
        if self.use_vllm:  # weights are sent by name, and vLLM knows no critic
            self.vllm_generation.sync_weights = self._alone(self.vllm_generation.sync_weights)

    def values(self, batch: dict) -> Tensor:
        """`V(s_t)` before every completion token, `(B, T)` float32, with gradients where they are enabled."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)  # (B, P + T)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        with self.accelerator.autocast():
            return token_values(self.critic, ids, mask, batch["completion_ids"].shape[1])

    @torch.no_grad()
    def values_in_mini_batches(self, batch: dict) -> Tensor:
        """`values` without gradients, as many rows at a time as a training step has."""
        keys = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        mask, size = batch["completion_mask"], self.args.per_device_train_batch_size
        parts = length_sorted(mask, size)
        if parts is None:
            parts = [(rows, mask.shape[1]) for rows in torch.arange(len(mask), device=mask.device).split(size)]
        values = torch.zeros(mask.shape, device=mask.device)
        for rows, width in parts:
            part = {key: batch[key][rows] for key in keys}
            part |= {key: part[key][:, :width] for key in ("completion_ids", "completion_mask")}
            values[rows, :width] = self.values(part)
        return values

    def learn_before_critic(self, policy_loss: Tensor) -> Tensor:
        """Backpropagate the policy's loss now, so that its activations are gone before the critic's come.

        Returns it detached. DeepSpeed counts calls of backward: there the loss is returned as it is, to be added to the
        critic's.
        """
        if not self.model.training or self.is_deepspeed_enabled:
            return policy_loss
        self.accelerator.backward(policy_loss)
        return policy_loss.detach()

    def _clip_grad_norm(self, model):
        if self.is_deepspeed_enabled or NAME not in self.model._modules:
            return super()._clip_grad_norm(model)
        with self._policy_alone():
            norm = super()._clip_grad_norm(model)  # which unscales the gradients of both
        torch.nn.utils.clip_grad_norm_(self.critic.parameters(), self.args.max_grad_norm)
        return norm

    def create_optimizer(self, model=None):
        split = self.optimizer is None and None not in (self.critic, self.args.critic_learning_rate)
        optimizer = super().create_optimizer(model)
        if split:
            critic = {id(parameter) for parameter in self.critic.parameters()}
            for group in list(optimizer.param_groups):
                own = [p for p in group["params"] if id(p) in critic]
                group["params"] = [p for p in group["params"] if id(p) not in critic]
                if own:
                    optimizer.add_param_group({**group, "params": own, "lr": self.args.critic_learning_rate})
        return optimizer

    def _save(self, output_dir=None, state_dict=None):
        critic_state = None
        if state_dict is not None:  # gathered by DeepSpeed: both in one
            prefix = f"{NAME}."
            critic_state = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
            state_dict = {k: v for k, v in state_dict.items() if not k.startswith(prefix)}
        with self._policy_alone():
            super()._save(output_dir, state_dict)
        if self.args.should_save and self.critic is not None:
            folder = critic_folder(self.critic, output_dir or self.args.output_dir)
            self.critic.save_pretrained(folder, state_dict=critic_state or None)
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with self._policy_alone():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.critic is not None:
            self._load_critic(resume_from_checkpoint)

    def _load_best_model(self):
        engine = self.is_deepspeed_enabled  # which has the critic in one with the policy
        with contextlib.nullcontext() if engine else self._policy_alone():
            super()._load_best_model()
        if self.critic is not None and not (engine and NAME in self.model._modules):
            self._load_critic(self.state.best_model_checkpoint)

    def _load_critic(self, checkpoint: str) -> None:
        load_critic_weights(self.critic, critic_folder(self.critic, checkpoint))

    @contextlib.contextmanager
    def _policy_alone(self):
        """The policy without its critic."""
        critic = self.model._modules.pop(NAME, None)
        try:
            yield
        finally:
            if critic is not None:
                self.model.add_module(NAME, critic)

    def _alone(self, function):
        def alone(*args, **kwargs):
            with self._policy_alone():
                return function(*args, **kwargs)

        return alone


def critic_folder(critic: nn.Module, folder: str) -> Path:
    """Where in a saved model its critic lies. An adapter lies deeper, or the policy's PEFT would load it as its own."""
    return Path(folder, NAME, "adapter") if hasattr(critic, "peft_config") else Path(folder, NAME)


def load_critic_weights(critic: nn.Module, folder: Path) -> None:
    """Load what `_save` wrote. Raises ValueError where there is no critic, or one of another width."""
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: the checkpoint was saved without a critic; start a new run.")
    if hasattr(critic, "load_pretrained"):  # a head alone
        critic.load_pretrained(folder)
        return
    if hasattr(critic, "peft_config"):
        set_peft_model_state_dict(critic, load_peft_weights(str(folder), device="cpu"))
        return
    with whole_weights():
        saved = AutoModelForSequenceClassification.from_pretrained(folder, dtype=critic.dtype)
    if saved.config.hidden_size != critic.config.hidden_size:
        raise ValueError(
            f"{folder} holds a critic with hidden_size={saved.config.hidden_size} and this run has "
            f"{critic.config.hidden_size}: give the args.critic_path that the checkpoint was made with."
        )
    critic.load_state_dict(saved.state_dict())


def token_values(critic: nn.Module, ids: Tensor, mask: Tensor, width: int) -> Tensor:
    """Values of the states before each of the last `width` tokens: `head(hidden_{t-1})`.

    critic: a sequence classifier with one label, or a PEFT model of one. ids, mask: `(B, P + T)`, prompts padded on the
    left. Returns `(B, T)`, float32, in reward units; where the mask is 0 they mean nothing.
    """
    classifier = critic.get_base_model() if hasattr(critic, "peft_config") else critic
    return classifier.score(token_states(classifier.base_model, ids, mask, width)).squeeze(-1).float()


def token_states(backbone: nn.Module, ids: Tensor, mask: Tensor, width: int) -> Tensor:
    """Last hidden states before each of the last `width` tokens, `(B, T, H)`; ids, mask: as of `token_values`."""
    ids, mask = ids[:, :-1], mask[:, :-1]  # nothing follows the last token
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # padding does not move a token
    hidden = backbone(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return hidden.last_hidden_state[:, -width:]
