"""Values of the prefixes of completions: a critic with what each token adds; the states that it reads."""

import contextlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.trainer.utils import disable_dropout_in_model

from rlhf_trl_ext.trainers.parts.critic import critic_folder, token_states
from rlhf_trl_ext.trainers.parts.initial_critic import load_critic
from rlhf_trl_ext.trainers.parts.scores import UNITS
from rlhf_trl_ext.zero.runtime import whole_weights

HEAD, GAINS = "head.safetensors", "gains.safetensors"


class PolicyHead(nn.Module):
    """A critic that is only a linear head, of zeros at first, on the policy's own last hidden states."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.score = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor) -> Tensor:
        """`(B, T, H)` -> `(B, T)` in reward units, float32."""
        return self.score(states.float()).squeeze(-1)

    def save_pretrained(self, folder: Path, state_dict: dict | None = None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(state_dict or self.state_dict(), Path(folder, HEAD))

    def load_pretrained(self, folder: Path) -> None:
        self.load_state_dict(load_file(Path(folder, HEAD)))


class TokenGains(nn.Module):
    """What each token adds to the value: `<W h_t, e(y_t)> / H`, h the hidden state before it, e its unit embedding.

    The value of a prefix is the critic's own plus the gains of its tokens. A sum over tokens is what the additive part
    of a reward is, and a product of state and token is what a policy's logit is, so that this is learnt much sooner
    than by a head on the state after the token. W is zero at first.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size, hidden_size))

    def forward(self, states: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Summed gains of the tokens before each. states, embeddings: `(B, T, H)`, mask: `(B, T)`; returns `(B, T)`."""
        tokens = nn.functional.normalize(embeddings.detach().float(), dim=-1)
        gains = (states.float() @ self.weight * tokens).sum(-1) / len(self.weight) * mask  # (B, T)
        return gains.cumsum(dim=1) - gains


class PrefixValues(nn.Module):
    """`V(s_t) = critic(s_t) + sum_{l < t} gain(s_l, y_l)` before every completion token.

    critic: a sequence classifier with one label, a PEFT model of one, or a `PolicyHead`. policy: causal language model
    whose states a `PolicyHead` reads.
    """

    def __init__(self, critic: nn.Module, policy: nn.Module):
        super().__init__()
        self.critic = critic
        read = policy if isinstance(critic, PolicyHead) else critic
        read = read.get_base_model() if hasattr(read, "peft_config") else read
        self.read = (read,)  # no submodule: its parameters are not all the critic's
        self.gains = TokenGains(read.config.get_text_config().hidden_size).to(read.device)

    @property
    def backbone(self) -> nn.Module:
        """What computes hidden states: the critic's own, or the policy's for a `PolicyHead`."""
        return self.read[0].base_model

    def states(self, batch: dict) -> Tensor:
        """Last hidden states `(B, T, H)` before every completion token. batch: ids and masks, as TRL names them."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)  # (B, P + T)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        return token_states(self.backbone, ids, mask, batch["completion_ids"].shape[1])

    def forward(self, batch: dict) -> Tensor:
        """`(B, T)` in reward units, float32. batch: what `states` reads, or `states`; completion_ids; token_mask."""
        if isinstance(self.critic, PolicyHead):
            states = batch["states"]
            values = self.critic(states)
        else:
            states = self.states(batch)
            values = self.read[0].score(states).squeeze(-1).float()
        embeddings = self.read[0].get_input_embeddings()(batch["completion_ids"])
        return values + self.gains(states, embeddings, batch["token_mask"])

    def save_gains(self, folder: str) -> None:
        """Beside the critic in a saved model."""
        save_file(self.gains.state_dict(), critic_folder(self.critic, folder) / GAINS)

    def load_gains(self, folder: Path) -> None:
        """folder: a saved critic's own. Raises ValueError if it has none."""
        if not Path(folder, GAINS).exists():
            raise ValueError(f"{folder} has no {GAINS}: it is no critic of GRPO-VI's.")
        self.gains.load_state_dict(load_file(Path(folder, GAINS)))


def load_prefix_values(trainer, peft_config=None, quantization_config=None) -> PrefixValues:
    """The critic that `GRPOVIConfig` asks for, on the trainer's device.

    Raises ValueError for a critic of PPO's, for a base that ZeRO-3 splits, and as `load_critic` does.
    """
    args = trainer.args
    if args.critic_path and Path(args.critic_path, UNITS).exists():
        raise ValueError(
            f"critic_path={args.critic_path}: a critic of PPO's, whose values are scores ({UNITS}), not rewards; "
            "give a reward model, a critic of GRPO-VI's, or null."
        )
    if args.critic_shares_base and is_deepspeed_zero3_enabled():
        raise ValueError("critic_shares_base=true: ZeRO-3 splits the base that both read; give deepspeed=zero2.")
    if args.vi_value_model == "head":
        critic = PolicyHead(trainer.model.config.get_text_config().hidden_size)
    else:
        with whole_weights():  # no part of DeepSpeed's engine: it is fitted whole, by an optimizer of its own
            critic = load_critic(trainer, peft_config, quantization_config).train()
        if args.gradient_checkpointing:
            critic.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    disable_dropout_in_model(critic)
    policy = trainer.accelerator.unwrap_model(trainer.model)
    values = PrefixValues(critic.to(trainer.accelerator.device), policy)
    if args.critic_path and Path(args.critic_path, GAINS).exists():
        values.load_gains(args.critic_path)
    return values


@contextlib.contextmanager
def generation_states(trainer, values: PrefixValues):
    """While inside, the hidden states `(B, H)` before every generated token are appended to the list that this yields.

    Generation calls the policy once for every token, which is all that a `PolicyHead` needs; others need nothing.
    Nothing is appended where the step is compiled, which has no room for a hook.
    """
    states, generate = [], trainer._generate_single_turn
    if trainer.compiles() or not isinstance(values.critic, PolicyHead):
        yield states
        return

    def generating(*args, **kwargs):
        handle = values.backbone.register_forward_hook(
            lambda _, __, outputs: states.append(outputs.last_hidden_state[:, -1])
        )
        try:
            return generate(*args, **kwargs)
        finally:
            handle.remove()

    trainer._generate_single_turn = generating
    try:
        yield states
    finally:
        del trainer._generate_single_turn
