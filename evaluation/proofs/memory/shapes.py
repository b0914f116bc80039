"""Small Llamas of many shapes, built from a configuration: what the coefficients and the checks are measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama; vocabulary: rows of its embedding, at least as many as the tokenizer of the tiny model has."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    layers: int = 2
    vocabulary: int = 1024

    def config(self, **further) -> "LlamaConfig":
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
            **further,
        )


def build_shape(folder: str | Path, seed: int = 0, labels: int = 0, dtype: str = "float32", **sizes) -> None:
    """Write a random Llama of `Shape(**sizes)` with the tiny model's tokenizer; labels=1: a sequence classifier."""
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    from rlhf_trl_ext.models.tiny import build_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = Shape(**sizes).config(**({"num_labels": labels} if labels else {}))
        model = (LlamaForSequenceClassification if labels else LlamaForCausalLM)(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
