"""A sequence-classification reward model as a reward function."""

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl.data_utils import apply_chat_template

from rlhf_trl_ext.zero.runtime import whole_weights


class RewardModel:
    """Scores `(prompts, completions)` in mini-batches with a classifier that has one label, as TRL's trainers do.

    The chat is rendered with the reward model's own tokenizer, so it may differ from the policy's.
    """

    def __init__(self, path: str, batch_size: int = 64, dtype: str = "float32", device: str | None = None):
        self.__name__ = "reward_model"
        self.batch_size = batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        with whole_weights():  # its forward is not part of DeepSpeed's engine
            self.model = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype).eval()
        if self.model.config.num_labels != 1:
            raise ValueError(f"reward.path={path} has num_labels={self.model.config.num_labels}: a reward model has 1.")
        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @torch.no_grad()
    def __call__(self, prompts: list, completions: list, **kwargs) -> list[float]:
        """Rewards in the model's own unit (logits); chats as lists of messages."""
        chats = [{"messages": prompt + completion} for prompt, completion in zip(prompts, completions, strict=True)]
        texts = [apply_chat_template(chat, self.tokenizer)["text"] for chat in chats]
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
