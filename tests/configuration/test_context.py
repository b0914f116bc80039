"""Prompts and completions that are longer together than a model's context are refused before training."""

import json
import shutil
from types import SimpleNamespace

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.context import prompts_fit_context


@pytest.fixture
def short(tiny, tmp_path):
    """The tiny model with a context of 64 tokens."""
    folder = shutil.copytree(tiny, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    return str(folder)


def test_the_longest_prompt_decides(short):
    tokenizer = AutoTokenizer.from_pretrained(short)
    prompts = [[{"role": "user", "content": text}] for text in ("Hi.", "I lost my red scarf in the library.")]
    texts = [tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in prompts]
    longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
    rows = Dataset.from_dict({"prompt": prompts})

    def check(completion):
        args = SimpleNamespace(max_completion_length=completion, steps_per_generation=1)
        prompts_fit_context(rows, args, tokenizer, short, None)

    check(64 - longest)
    with pytest.raises(ConfigError) as error:
        check(65 - longest)
    assert str(error.value) == (
        f"args.max_completion_length={65 - longest} with a prompt of {longest} tokens: the model's context is 64; give "
        f"at most {64 - longest}, or a model of longer context."
    )
    with pytest.raises(ConfigError, match=r"^args.max_completion_length=64 with a prompt of 1 tokens: "):
        check(64)
    prompts_fit_context(rows, SimpleNamespace(max_length=1000), tokenizer, short, None)  # learns from a file
