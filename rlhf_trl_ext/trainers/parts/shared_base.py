"""One base, four roles: policy, reference, critic and reward model as adapters on the same frozen weights.

The reference is the policy with its adapter off (TRL does that). Critic and reward model are module trees of their own
whose frozen parameters are the policy's, not copies: no adapter is ever switched, so gradients, activation
checkpointing and several processes work as with separate models.
"""

import contextlib
import copy
import itertools

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.trainer.utils import get_config_model_id

from rlhf_trl_ext.configuration.paths import adapter_folder
from rlhf_trl_ext.rewards.model import RewardModel


def classifier_on(policy: PeftModel) -> nn.Module:
    """A sequence classifier with one label and a head of zeros that shares every weight of the policy's frozen base.

    Raises ValueError if the policy is not a PEFT model, has a quantised base, or trains copies of modules of its base.
    """
    if not isinstance(policy, PeftModel):
        raise ValueError("args.critic_shares_base=true needs adapters: give model.use_peft=true.")
    if any(config.modules_to_save for config in policy.peft_config.values()):
        raise ValueError("args.critic_shares_base=true does not go with lora_modules_to_save: leave one of them out.")
    base = policy.get_base_model()
    if getattr(base, "hf_quantizer", None) is not None:
        raise ValueError("args.critic_shares_base=true is for bases that are not quantised: leave load_in_4bit out.")
    shared = {id(tensor): tensor for tensor in itertools.chain(base.parameters(), base.buffers())}
    backbone = copy.deepcopy(base.base_model, shared)  # modules are copied, tensors are not
    for name, module in list(backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, module.get_base_layer())
    config = copy.deepcopy(base.config)
    config.num_labels = 1
    # ZeRO-3 lays out weights as they are made, and cannot on the meta device
    place = contextlib.nullcontext() if is_deepspeed_zero3_enabled() else torch.device("meta")
    with torch.random.fork_rng(), place:
        classifier = AutoModelForSequenceClassification.from_config(config)
    setattr(classifier, classifier.base_model_prefix, backbone)
    classifier.score = nn.Linear(classifier.score.in_features, 1, bias=False, dtype=base.dtype, device=base.device)
    nn.init.zeros_(classifier.score.weight)
    return classifier


def critic_on(policy: PeftModel, path: str | None) -> PeftModel:
    """A trainable critic on the policy's base: from the reward adapter in `path`, or new with a head of zeros.

    Raises ValueError if `path` is no adapter on that base.
    """
    classifier = classifier_on(policy)
    if path is None:
        return get_peft_model(classifier, for_classification(policy.peft_config["default"]))
    check_base("args.critic_path", path, policy)
    return PeftModel.from_pretrained(classifier, adapter_folder(path) or path, is_trainable=True)


def for_classification(config: LoraConfig) -> LoraConfig:
    """The same adapter for a sequence classifier, whose head is trained whole."""
    config = copy.deepcopy(config)
    config.task_type, config.inference_mode = "SEQ_CLS", False
    return config


def check_base(key: str, path: str, policy: PeftModel) -> None:
    """Raises ValueError unless `path` is an adapter on the policy's base."""
    base = get_config_model_id(policy.get_base_model().config)
    try:
        recorded = PeftConfig.from_pretrained(adapter_folder(path) or path).base_model_name_or_path
    except ValueError as error:
        raise ValueError(
            f"{key}={path} is not an adapter: an adapter on {base} is needed to share its base."
        ) from error
    if recorded != base:
        raise ValueError(f"{key}={path} is an adapter on {recorded}: one on the policy's base {base} is needed.")


class AdapterReward(RewardModel):
    """A reward model that is an adapter on the policy's base; the trainer attaches it to its policy.

    path: an adapter as `algorithm=reward model.use_peft=true` saves it (`<folder>/adapter`).
    """

    def __init__(self, path: str, batch_size: int = 64):
        self.__name__ = "reward_adapter"
        self.path, self.batch_size = path, batch_size
        self.model = None

    def attach(self, policy: PeftModel, tokenizer) -> None:
        """Load the adapter on the policy's base. Raises ValueError if it belongs to another."""
        check_base("reward_funcs", self.path, policy)
        self.tokenizer = tokenizer
        self.model = PeftModel.from_pretrained(classifier_on(policy), adapter_folder(self.path) or self.path).eval()
        self.model.get_base_model().config.pad_token_id = tokenizer.pad_token_id
