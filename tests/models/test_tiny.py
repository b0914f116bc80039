"""The tiny model and its tokenizer."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_trl_ext.data import embedded_words as text
from rlhf_trl_ext.models.tiny import build_tiny

PROMPT = [{"role": "user", "content": "I am Mina. I lost my broken hammer in the garden."}]
REPLY = [{"role": "assistant", "content": "Hello Mina, try the garden."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    build_tiny(path, seed=0)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_every_task_word_is_one_token_with_and_without_a_space(tokenizer):
    for word in text.vocabulary():
        assert len(tokenizer(word)["input_ids"]) == 1, word
        assert len(tokenizer(f" {word}")["input_ids"]) == 1, word


def test_reply_has_one_token_per_word_and_mark(tokenizer):
    # Hello| Mina|,| try| the| garden|. -> 7
    assert len(tokenizer(REPLY[0]["content"])["input_ids"]) == 7


@pytest.mark.parametrize("content", ["Zürich, 漢字 🎉", " a  b\n\tc ", "hamlamp don't <b> 1234", "Hello Mina, try."])
def test_any_text_survives_the_round_trip(tokenizer, content):
    ids = tokenizer(content)["input_ids"]
    assert tokenizer.decode(ids) == content
    assert max(ids) < len(tokenizer)


def test_special_tokens(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    for token in ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"):
        assert len(tokenizer(token)["input_ids"]) == 1


def test_chat_template_renders_every_role(tokenizer):
    system = [{"role": "system", "content": "Be kind."}]
    rendered = tokenizer.apply_chat_template(system + PROMPT[:1] + REPLY, tokenize=False)
    assert rendered == (
        "<|system|>Be kind.<|end|><|user|>I am Mina. I lost my broken hammer in the garden.<|end|>"
        "<|assistant|>Hello Mina, try the garden.<|end|>"
    )


def test_prompt_is_a_prefix_of_prompt_and_completion(tokenizer):
    prompt = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=False)
    both = tokenizer.apply_chat_template(PROMPT + REPLY, return_dict=False)
    assert both[: len(prompt)] == prompt
    # what is left is the reply and the end token, 7 + 1
    assert tokenizer.decode(both[len(prompt) :]) == "Hello Mina, try the garden.<|end|>"
    assert len(both) - len(prompt) == 8


def test_assistant_mask_marks_the_reply(tokenizer):
    marked = tokenizer.apply_chat_template(PROMPT + REPLY, return_dict=True, return_assistant_tokens_mask=True)
    assert sum(marked["assistant_masks"]) == 8


def test_unknown_role_is_refused(tokenizer):
    with pytest.raises(Exception, match="role=tool is unknown"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_size_is_within_the_declared_range_and_weights_finite(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 300_000 < model.num_parameters() < 3_000_000
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert model.generation_config.eos_token_id == 1 and model.generation_config.pad_token_id == 0


def test_attention_starts_by_copying(folder):
    # W_o W_v = gain Q^T Q = gain I, here with gain .1
    attention = AutoModelForCausalLM.from_pretrained(folder).model.layers[0].self_attn
    product = attention.o_proj.weight @ attention.v_proj.weight
    torch.testing.assert_close(product, 0.1 * torch.eye(128), atol=1e-5, rtol=0)


def test_left_padding_does_not_change_the_next_token(folder, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    long = [{"role": "user", "content": PROMPT[0]["content"] + " Keep it short."}]
    single = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    batch = tokenizer.apply_chat_template(
        [PROMPT, long], add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    assert batch["attention_mask"][0, 0] == 0  # padded on the left
    with torch.no_grad():
        together, alone = (
            model(**inputs, position_ids=(inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)).logits[0, -1]
            for inputs in (batch, single)
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_seed_decides_the_weights_and_the_callers_random_state_is_kept(folder, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_tiny(tmp_path / "same", seed=0)
    assert torch.equal(torch.rand(3), expected)
    build_tiny(tmp_path / "other", seed=1)
    first, same, other = (
        AutoModelForCausalLM.from_pretrained(path).model.embed_tokens.weight
        for path in (folder, tmp_path / "same", tmp_path / "other")
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_loads_as_a_reward_model(folder, tokenizer):
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    inputs = tokenizer.apply_chat_template(PROMPT + REPLY, return_tensors="pt", return_dict=True)
    assert model(**inputs).logits.shape == (1, 1)


def test_odd_head_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="hidden_size=100 with heads=4"):
        build_tiny(tmp_path, hidden_size=100)


def test_embeddings_have_the_declared_deviation(tmp_path):
    build_tiny(tmp_path, seed=0, embedding_std=0.06)
    weight = AutoModelForCausalLM.from_pretrained(tmp_path).model.embed_tokens.weight
    # 540 x 128 = 69,120 normal draws: the deviation of their standard deviation is .06 / sqrt(2 * 69120) = .00016
    assert abs(weight.std().item() - 0.06) < 0.001
