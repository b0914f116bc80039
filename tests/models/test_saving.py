"""Adapters merged into their base: the merged model computes what the adapter does, or is refused."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rlhf_trl_ext.models import saving
from rlhf_trl_ext.models.tiny import build_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a model whose embeddings are tied to its LM head."""
    folder = tmp_path_factory.mktemp("base")
    build_tiny(folder, hidden_size=32, layers=1, heads=2, feed_forward_size=64)
    return folder


def adapter(base, folder, targets):
    """Random LoRA weights on some modules, saved; returns their model."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"], ["lm_head"]], ids=" ".join)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_merged_model_is_the_adapter_also_on_tied_embeddings(base, tmp_path, targets):
    model = adapter(base, tmp_path / "adapter", targets)
    saving.merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.arange(6, 14)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base).eval()(ids).logits
        torch.testing.assert_close(merged(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
        assert (merged(ids).logits - plain).abs().max() > 1e-2  # the control: the adapter changes something


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_merged_model_that_computes_something_else_is_refused(base, tmp_path, monkeypatch):
    adapter(base, tmp_path / "adapter", ["q_proj", "embed_tokens"])
    monkeypatch.setattr(saving, "untie", lambda model: None)
    with pytest.raises(ValueError, match=r"logits differ from those of .*adapter by \d+%.*model.merge_adapter=false"):
        saving.merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
