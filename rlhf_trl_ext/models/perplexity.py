"""Perplexity of a model on held-out demonstrations: what it costs a policy to have been optimised for a reward."""

import math

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import pad, selective_log_softmax

from rlhf_trl_ext.statistics import mean_interval


@torch.no_grad()
def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, demonstrations: list[dict], batch_size: int
) -> dict[str, float | list[float]]:
    """`exp(- sum log p(y_t) / tokens)` over the tokens of the completions, end tokens of the template included.

    demonstrations: rows with prompt and completion as lists of turns. Returns `perplexity`, with its 95 % interval
    over demonstrations `perplexity_ci`, and `perplexity_tokens`. Raises ValueError for no demonstrations.
    """
    if not demonstrations:
        raise ValueError("no demonstrations: perplexity needs at least 1.")
    losses, tokens = [], []
    for start in range(0, len(demonstrations), batch_size):
        pairs = [_ids(tokenizer, row) for row in demonstrations[start : start + batch_size]]
        ids = pad([torch.tensor(whole) for whole, _ in pairs], padding_value=tokenizer.pad_token_id).to(model.device)
        counts = [torch.tensor([0] * begin + [1] * (len(whole) - begin)) for whole, begin in pairs]
        attention = pad([torch.ones(len(whole), dtype=torch.long) for whole, _ in pairs]).to(model.device)
        mask = pad(counts).to(model.device)[:, 1:]  # (B, T - 1)
        logits = model(ids, attention_mask=attention).logits[:, :-1].float()
        losses += (-selective_log_softmax(logits, ids[:, 1:]) * mask).sum(dim=1).tolist()
        tokens += mask.sum(dim=1).tolist()
    losses, tokens = np.array(losses), np.array(tokens)
    # the mean over tokens, demonstrations resampled whole: a group of `tokens` equal values each
    groups = np.repeat(np.arange(len(losses)), tokens)
    low, high = mean_interval(np.repeat(losses / np.maximum(tokens, 1), tokens), groups=groups)
    return {
        "perplexity": math.exp(losses.sum() / tokens.sum()),
        "perplexity_ci": [math.exp(low), math.exp(high)],
        "perplexity_tokens": int(tokens.sum()),
    }


def _ids(tokenizer: PreTrainedTokenizerBase, row: dict) -> tuple[list[int], int]:
    """Token ids of the conversation, and where its completion begins."""
    start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
    return whole, len(start)
