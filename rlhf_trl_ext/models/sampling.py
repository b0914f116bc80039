"""Samples of a policy on held-out prompts, with rewards and the divergence from a reference."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from rlhf_trl_ext.models.compiled_decoding import (
    CompiledDecoding,
    compile_settings,
    wants_compiled,
    why_not_compiled,
)

logger = logging.getLogger(__name__)


def sample(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[dict]],
    scores: dict[str, Callable],
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
    columns: dict[str, list] | None = None,
    compiled_generation: str = "off",
) -> Iterator[dict]:
    """One sample per prompt, in order: prompt, completion, its scores, kl, entropy, completion_tokens, truncated.

    scores: name -> reward function `(prompts, completions, **columns) -> list of float`, completions in chat form.
    columns: further columns of the data set, such as the solution that a reward checks against; rows keep them.
    kl: `sum_t log policy(y_t) - log reference(y_t)` of the sampled tokens, in nats per completion (estimator k1), both
    at the temperature of sampling, at another one it estimates no divergence; None at temperature 0, where one token
    has probability 1. entropy: of the policy's next token at temperature 1, in nats, mean over the sampled tokens.
    compiled_generation: on, off, or auto, as of the trainers.
    """
    if temperature == 0:
        logger.warning("kl is left empty: at temperature=0 nothing is sampled, and log-probs estimate no divergence.")
    decoding = _decoding(compiled_generation, policy, tokenizer, prompts, max_new_tokens, batch_size)
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        done = complete(policy, tokenizer, batch, max_new_tokens, temperature, decoding)
        difference, entropy = _against(policy, reference, done, temperature)
        chats = [[{"role": "assistant", "content": text}] for text in done.texts]
        more = {name: values[start : start + batch_size] for name, values in (columns or {}).items()}
        scored = {name: function(prompts=batch, completions=chats, **more) for name, function in scores.items()}
        for row, prompt in enumerate(batch):
            yield {
                "prompt": prompt,
                "completion": done.texts[row],
                **{name: values[row] for name, values in more.items()},
                **{name: values[row] for name, values in scored.items()},
                "kl": difference[row].item() if temperature else None,
                "entropy": entropy[row].item(),
                "completion_tokens": int(done.mask[row].sum()),
                "truncated": not done.ended[row].item(),
            }


def _decoding(
    choice: str, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list, tokens: int, rows: int
) -> CompiledDecoding | None:
    """A compiled decode step for all batches, if it is wanted and can be; why it cannot is logged."""
    if not wants_compiled(choice, policy.device.type, math.ceil(len(prompts) / rows) * tokens):
        return None
    reason = why_not_compiled(policy)
    if reason:
        logger.warning("compiled_generation=%s: sampling is not compiled, as %s.", choice, reason)
        return None
    ids = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=False)
    return CompiledDecoding(policy, min(rows, len(prompts)), max(map(len, ids)) + tokens)


class Completions(NamedTuple):
    """ids, attention: `(B, width + T)`, prompts padded on the left. mask: `(B, T)`, 1 up to the end. ended: `(B,)`."""

    ids: Tensor
    attention: Tensor
    width: int
    mask: Tensor
    ended: Tensor
    texts: list[str]


@torch.no_grad()
def complete(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: list[list[dict]],
    max_new_tokens: int,
    temperature: float,
    decoding: CompiledDecoding | None = None,
) -> Completions:
    """One completion a chat from the whole distribution; greedy at temperature 0."""
    tokenizer.padding_side = "left"
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    ).to(policy.device)
    inputs.pop("token_type_ids", None)
    options = sampling_options(policy, tokenizer, temperature)
    ends, width, compiled = options["eos_token_id"], inputs["input_ids"].shape[1], contextlib.nullcontext()
    if decoding is not None:
        compiled = decoding.batch(len(chats), width + max_new_tokens)
        options |= compile_settings(policy.device)
    with compiled:
        ids = policy.generate(**inputs, max_new_tokens=max_new_tokens, **options)
    ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=policy.device)
    mask = completion_mask(ids[:, width:], ends)
    texts = tokenizer.batch_decode(
        ids[:, width:].masked_fill(mask == 0, tokenizer.pad_token_id), skip_special_tokens=True
    )
    attention = torch.cat([inputs["attention_mask"], mask], dim=1)
    return Completions(ids, attention, width, mask, torch.isin(ids[:, width:], ends).any(dim=1), texts)


def sampling_options(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float) -> dict:
    """Arguments of `generate` for the whole distribution, greedy at temperature 0, and where a reply ends."""
    heat = {"do_sample": False}
    if temperature:
        heat = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    ends = policy.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends  # without generation_config.json no reply would end
    return {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, **heat}


def _against(
    policy: PreTrainedModel, reference: PreTrainedModel, done: Completions, temperature: float
) -> tuple[Tensor, Tensor]:
    """KL estimate k1 in nats per completion at a temperature, and entropy in nats per token, `(B,)` each."""
    logits, temperature = completion_logits(policy, done.ids, done.attention, done.width), temperature or 1.0
    entropy = (entropy_from_logits(logits) * done.mask).sum(dim=1) / done.mask.sum(dim=1)
    own = selective_log_softmax(logits.div_(temperature), done.ids[:, done.width :])
    del logits  # as large as the next ones
    other = logprobs(reference, done.ids, done.attention, done.width, temperature)
    return ((own - other) * done.mask).sum(dim=1), entropy


def completion_mask(completion_ids: Tensor, ends: Tensor) -> Tensor:
    """1 up to and with the first end token, 0 after. completion_ids: `(B, T)`, ends: `(E,)`; returns `(B, T)` long."""
    is_end = torch.isin(completion_ids, ends).long()
    return (is_end.cumsum(dim=1) - is_end == 0).long()


@torch.no_grad()
def completion_logits(model: PreTrainedModel, ids: Tensor, attention: Tensor, width: int) -> Tensor:
    """Logits for the tokens from position `width` on. ids, attention: `(B, width + T)`; returns `(B, T, V)` float32."""
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    return model(ids, attention_mask=attention, position_ids=positions).logits[:, width - 1 : -1].float()


@torch.no_grad()
def logprobs(model: PreTrainedModel, ids: Tensor, attention: Tensor, width: int, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of the tokens from position `width` on. ids, attention: `(B, width + T)`; returns `(B, T)`."""
    return selective_log_softmax(completion_logits(model, ids, attention, width).div_(temperature), ids[:, width:])
