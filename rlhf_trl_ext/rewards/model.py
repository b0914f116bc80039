"""Sequence-classification reward models: which folders hold one, one as a reward function."""

import torch
from peft import PeftConfig
from transformers import AutoConfig
from trl.data_utils import apply_chat_template, is_conversational

from rlhf_trl_ext.configuration.paths import adapter_base, adapter_folder, split_revision
from rlhf_trl_ext.models.pretrained import load_classifier, load_tokenizer
from rlhf_trl_ext.quantities import Count
from rlhf_trl_ext.zero.runtime import whole_weights


def check_reward_model(key: str, path: str) -> None:
    """Raises ValueError, from the configuration files alone, unless `path` is a classifier or adapter with one label.

    A language model without a head would get a random one. key: where the path was given, for the message.
    """
    name, revision = split_revision(path)
    try:
        folder = adapter_folder(path)
        adapter = PeftConfig.from_pretrained(folder) if folder else None
        base, revision = split_revision(adapter_base(folder)) if folder else (name, revision)
        config = AutoConfig.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{key}={path}: no such folder or hub id of a reward model ({' '.join(str(error).split())[:200]}); train "
            "one with algorithm=reward."
        ) from error
    architectures = [adapter.task_type or "an adapter"] if adapter else config.architectures or []
    if any("CausalLM" in str(name) or "CAUSAL_LM" in str(name) for name in architectures):
        raise ValueError(
            f"{key}={path} is a language model ({architectures[0]}) without a reward head: a reward model with "
            "num_labels=1 is needed; train one with algorithm=reward."
        )
    if adapter is None and config.num_labels != 1:
        raise ValueError(
            f"{key}={path} has num_labels={config.num_labels}: a reward model with num_labels=1 is needed; "
            "train one with algorithm=reward."
        )


class RewardModel:
    """Scores `(prompts, completions)` in mini-batches with a classifier that has one label, as TRL's trainers do.

    A chat is rendered with the reward model's own tokenizer, so it may differ from the policy's.
    """

    def __init__(self, path: str, batch_size: Count = 64, dtype: str = "float32", device: str | None = None):
        self.__name__ = "reward_model"
        self.batch_size = batch_size
        check_reward_model("reward.path", path)
        self.tokenizer = load_tokenizer(path)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        with whole_weights():  # its forward is not part of DeepSpeed's engine
            self.model = load_classifier(path, dtype=dtype).eval()
        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @torch.no_grad()
    def __call__(self, prompts: list, completions: list, **kwargs) -> list[float]:
        """Rewards in the model's own unit (logits); both as texts, or both as lists of messages."""
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        if is_conversational({"prompt": prompts[0]}):
            texts = [apply_chat_template({"messages": chat}, self.tokenizer)["text"] for chat in texts]
        rewards = []
        for start in range(0, len(texts), self.batch_size):
            batch = self.tokenizer(
                texts[start : start + self.batch_size],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                add_special_tokens=False,
            ).to(self.model.device)
            batch.pop("token_type_ids", None)
            rewards += self.model(**batch).logits[:, 0].float().tolist()
        return rewards
