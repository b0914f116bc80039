"""The tiny policy of the landscapes: a GPT-2 of one layer that reads a question and speaks in actions."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

# A question is asked in several tokens, or attention, spread evenly at first, would see little of it late.
PROMPT_LENGTH = 4


def build(
    folder: Path, questions: int, actions: int, length: int, width: int, initial_std: float, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The policy of a seed and its tokenizer; `folder` gets its weights, where a critic can start from them.

    Its output layer has the `actions` only, all equally likely at first: a completion can neither end early nor name a
    question, so every one has the same length and its tokens' probabilities are those it was sampled with.
    initial_std: of all weights; at GPT-2's 0.02 a network this narrow hardly sees its prompt.
    """
    # Ids below `actions` are actions, then the questions, spelt as their numbers, and one token for end and padding.
    vocabulary = {f"<{action}>": action for action in range(actions)}
    vocabulary |= {str(question): actions + question for question in range(questions)} | {"<end>": actions + questions}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>", padding_side="left"
    )
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=PROMPT_LENGTH + length,
        n_embd=width,
        n_inner=4 * width,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=initial_std,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    GPT2LMHeadModel(config).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head = torch.nn.Linear(width, actions, bias=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    return model, tokenizer
