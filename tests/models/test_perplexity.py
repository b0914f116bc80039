import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_trl_ext.models.perplexity import perplexity


def row(prompt, completion):
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


ROWS = [
    row("Where is my broken hammer?", "It is in the garden."),
    row("Hello, please help me.", "Yes."),
    row("Hi", "No"),
]


def test_perplexity_is_the_exponential_of_the_mean_loss(tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    total, tokens = 0.0, 0
    for demonstration in ROWS:  # transformers' own loss, one conversation at a time
        start = tokenizer.apply_chat_template(demonstration["prompt"], add_generation_prompt=True, return_dict=True)
        start = len(start["input_ids"])
        whole = tokenizer.apply_chat_template(
            demonstration["prompt"] + demonstration["completion"], return_tensors="pt", return_dict=True
        )["input_ids"]
        labels = whole.clone()
        labels[:, :start] = -100
        count = int((labels != -100).sum())
        total += model(whole, labels=labels).loss.item() * count
        tokens += count
    told = perplexity(model, tokenizer, ROWS, batch_size=2)
    assert told["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert told["perplexity_tokens"] == tokens
    assert told["perplexity_ci"][0] <= told["perplexity"] <= told["perplexity_ci"][1]


def test_a_uniform_model_has_the_vocabulary_as_perplexity(tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    assert perplexity(model, tokenizer, ROWS, 3)["perplexity"] == pytest.approx(model.config.vocab_size, rel=1e-4)
    with pytest.raises(ValueError, match="no demonstrations"):
        perplexity(model, tokenizer, [], 3)
