"""The tiny model: a Llama of about half a million parameters with its own tokenizer, built on the spot for a CPU."""

from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_trl_ext.data import embedded_words as text
from rlhf_trl_ext.quantities import Count, Seed

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant")
MAX_LENGTH = 2048
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('role=' + message['role'] + ' is unknown: use system, user or assistant.') -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Byte-level BPE without merges: 5 special tokens, the 256 bytes, and each task word with and without a space.

    A word of the embedded task is one token, so it cannot be misspelt half-way; any other text is spelt in bytes and
    survives the round trip. `<|end|>` closes every message and is the end-of-sequence token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, *(f"<|{role}|>" for role in ROLES)]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = text.vocabulary()
    pieces += [word for word in (*words, *(f"Ġ{word}" for word in words)) if len(word) > 1]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=special[2:],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def copy_initialise(model: "LlamaForCausalLM", gain: float) -> None:
    """Attention that starts by copying what it looks at: W_v = Q, W_o = gain Q^T with a random orthogonal Q per layer.

    Answers repeat facts of the prompt. After 200 steps of SFT (experiment=demo) the item is right in 93 % of the
    answers that name one, without this initialisation in 6 % (chance: 1 in 16).
    """
    import torch

    for layer in model.model.layers:
        size = layer.self_attn.v_proj.weight.shape[0]
        orthogonal = torch.linalg.qr(torch.randn(size, size)).Q
        layer.self_attn.v_proj.weight.data.copy_(orthogonal)
        layer.self_attn.o_proj.weight.data.copy_(gain * orthogonal.T)


def build_tiny(
    folder: str | Path,
    seed: Seed = 0,
    hidden_size: Count = 128,
    layers: Count = 2,
    heads: Count = 4,
    feed_forward_size: Count = 384,
    embedding_std: float = 0.06,
    copy_gain: float = 0.1,
) -> None:
    """Write a randomly initialised Llama with tokenizer and chat template to `folder`, loadable by `from_pretrained`.

    seed: of the weights; the tokenizer does not depend on it. The caller's random state is left as it was.
    embedding_std: of the (tied) embeddings; at the usual 0.02, 200 steps of SFT leave most facts uncopied.
    copy_gain: scale of the copied value in the residual stream (see `copy_initialise`).
    Raises ValueError if hidden_size is not a multiple of 2 * heads (rotary embeddings need even heads).
    """
    if hidden_size % (2 * heads):
        raise ValueError(
            f"hidden_size={hidden_size} with heads={heads} is not allowed: give a multiple of {2 * heads}."
        )
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=feed_forward_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=embedding_std)
        copy_initialise(model, copy_gain)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
