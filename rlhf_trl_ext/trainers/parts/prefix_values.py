"""Values of the prefixes of completions: a critic's own, and the gains of their tokens."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf_trl_ext.trainers.parts.critic import token_states
from rlhf_trl_ext.trainers.parts.critic_files import PolicyHead, critic_folder

GAINS = "gains.safetensors"


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
    whose states a `PolicyHead` reads. token_gains: whether there are gains.
    """

    def __init__(self, critic: nn.Module, policy: nn.Module, token_gains: bool):
        super().__init__()
        self.critic = critic
        read = policy if isinstance(critic, PolicyHead) else critic
        read = read.get_base_model() if hasattr(read, "peft_config") else read
        self.read = (read,)  # no submodule: its parameters are not all the critic's
        self.gains = TokenGains(read.config.get_text_config().hidden_size).to(read.device) if token_gains else None

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
        if self.gains is None:
            return values
        embeddings = self.read[0].get_input_embeddings()(batch["completion_ids"])
        return values + self.gains(states, embeddings, batch["token_mask"])

    def save_gains(self, folder: str) -> None:
        """Beside the critic in a saved model."""
        if self.gains is not None:
            save_file(self.gains.state_dict(), critic_folder(self.critic, folder) / GAINS)

    def load_gains(self, folder: Path) -> None:
        """folder: a saved critic's own. Raises ValueError if it has none."""
        if self.gains is None:
            return
        if not Path(folder, GAINS).exists():
            raise ValueError(f"{folder} has no {GAINS}: the critic was saved with vi_token_gains=false; give it.")
        self.gains.load_state_dict(load_file(Path(folder, GAINS)))


def tokens_with(texts: list[str] | None, tokenizer) -> Tensor | None:
    """Which tokens contain one of `texts`: `(V,)` bool; None without texts."""
    if not texts:
        return None
    tokens = (tokenizer.decode([token]) for token in range(len(tokenizer)))
    return torch.tensor([any(text in token for text in texts) for token in tokens])
