"""A critic on disk: where it lies in a saved model, how its weights are loaded again; a head on a policy's states."""

from pathlib import Path

from peft import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from rlhf_trl_ext.zero.runtime import whole_weights

NAME = "critic"
HEAD = "head.safetensors"


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


def critic_folder(critic: nn.Module, folder: str) -> Path:
    """Where in a saved model its critic lies. An adapter lies deeper, or the policy's PEFT would load it as its own."""
    return Path(folder, NAME, "adapter") if hasattr(critic, "peft_config") else Path(folder, NAME)


def load_critic_weights(critic: nn.Module, folder: Path) -> None:
    """Load what `_save` wrote. Raises ValueError where there is no critic, or one of another width."""
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: the checkpoint was saved without a critic; start a new run.")
    if isinstance(critic, PolicyHead):
        critic.load_state_dict(load_file(folder / HEAD))
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
