"""The critic that a run starts from: a reward model, a saved critic, or the policy with a head of zeros."""

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.trainer.utils import get_config_model_id

from rlhf_trl_ext.models.pretrained import load_classifier, load_tokenizer
from rlhf_trl_ext.rewards.model import check_reward_model
from rlhf_trl_ext.trainers.parts.shared_base import critic_on, for_classification


def load_critic(trainer, peft_config=None, quantization_config=None) -> nn.Module:
    """The critic that `CriticArguments` ask for: a sequence classifier with one label, or adapters on one.

    Raises ValueError for several labels, another tokenizer than the policy's, or a base that cannot be shared.
    """
    path, policy, tokenizer = trainer.args.critic_path, trainer.model, trainer.processing_class
    if trainer.args.critic_shares_base:
        critic = critic_on(policy, path)
        critic.get_base_model().config.pad_token_id = tokenizer.pad_token_id
        return critic
    if path is not None:
        check_reward_model("args.critic_path", path)
        _check_tokenizer(path, tokenizer)
    revision = (trainer.args.model_init_kwargs or {}).get("revision")
    source = path or get_config_model_id(policy.config)
    extra = {} if quantization_config is None else {"quantization_config": quantization_config}
    critic = load_classifier(source, None if path else revision, dtype=policy.dtype, **extra)
    if not hasattr(critic, "score"):
        raise ValueError(f"args.critic_path={source}: {type(critic).__name__} has no token-level score head.")
    critic.config.pad_token_id = tokenizer.pad_token_id
    if path is None:
        _zero(critic.score.weight)
    return critic if peft_config is None else get_peft_model(critic, for_classification(peft_config))


def _check_tokenizer(path: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if load_tokenizer(path).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"args.critic_path={path} has another tokenizer than the policy, whose token ids a critic must read: "
            "give args.critic_path=null to start the critic from the policy."
        )


@torch.no_grad()
def _zero(weight: Tensor) -> None:
    """Zeros, also where ZeRO-3 has distributed the weight over the processes."""
    if is_deepspeed_zero3_enabled():
        import deepspeed

        with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            weight.zero_()
    else:
        weight.zero_()
