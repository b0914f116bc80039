import pytest
from conftest import ROOT
from transformers import AutoTokenizer

from rlhf_trl_ext.models.loading import ModelArguments, template
from rlhf_trl_ext.models.tiny import build_tiny

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def test_a_built_model_is_made_once(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        build_tiny(folder)

    arguments = ModelArguments(build=build)
    assert arguments.checkpoint(tmp_path / "m") == arguments.checkpoint(tmp_path / "m") == str(tmp_path / "m")
    assert len(calls) == 1


def test_no_model_is_an_error():
    with pytest.raises(ValueError, match="model_name_or_path is empty"):
        ModelArguments().checkpoint(None)


def test_a_tokenizer_without_chat_template_is_refused_or_given_one(tiny, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no chat template; give model\.chat_template=<file\.jinja> or one of plain"):
        ModelArguments().tokenizer(str(tmp_path))
    given = ModelArguments(chat_template="plain").tokenizer(str(tmp_path))
    assert given.apply_chat_template(CHAT[:1], tokenize=False, add_generation_prompt=True).endswith(
        "user: Hi\nassistant:"
    )


def test_an_unknown_template_is_told():
    with pytest.raises(ValueError, match=r"model\.chat_template=nope: no such file; allowed are plain"):
        template("nope")


def test_the_plain_template_renders_the_prompt_as_a_prefix(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = template("plain")
    prompt = tokenizer.apply_chat_template(CHAT[:1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert whole.startswith(prompt) and whole.endswith(tokenizer.eos_token)
    assert (ROOT / "rlhf_trl_ext" / "chat_templates" / "plain.jinja").exists()
