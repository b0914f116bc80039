"""Prompts and completions against the tokens that a model can read."""

from transformers import AutoConfig

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.paths import split_revision


def fits_context(completion: int, prompt: int, context: float) -> None:
    """Raises ConfigError where a prompt and a completion, in tokens, are longer than the model's context."""
    if completion + prompt <= context:
        return
    room = f"give at most {context - prompt}" if context > prompt else "leave it out by dataset.max_prompt_tokens"
    raise ConfigError(
        f"args.max_completion_length={completion} with a prompt of {prompt} tokens: the model's context is {context}; "
        f"{room}, or a model of longer context."
    )


def prompts_fit_context(rows, args, tokenizer, checkpoint: str, revision: str | None) -> None:
    """Raises ConfigError where the longest prompt and its completion are longer than the model's context.

    rows: a `Dataset` of prompts for an online algorithm; of others nothing is asked, nor of a model that does not say
    what it can read. args: the trainer's arguments.
    """
    completion = getattr(args, "max_completion_length", None)
    if completion is None or not hasattr(args, "steps_per_generation"):
        return
    path, own = split_revision(checkpoint)
    config = AutoConfig.from_pretrained(path, revision=own or revision)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not context:
        return
    fits_context(completion, 1, context)
    texts = (tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in rows["prompt"])
    long = [text for text in texts if len(text.encode()) + completion >= context]  # a token is a byte at least
    lengths = map(len, tokenizer(long, add_special_tokens=False)["input_ids"] if long else [])
    fits_context(completion, max(lengths, default=0), context)
