"""Sizes of a model without its weights: from a known hub id, a folder or the hub, laid out on torch's meta device."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from peft import PeftConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PretrainedConfig

from rlhf_trl_ext.configuration.paths import adapter_base, adapter_folder, split_revision

KNOWN = Path(__file__).with_name("architectures.yaml")


@dataclass(frozen=True)
class Architecture:
    """Widths, and numbers of parameters. Of a layer: matrices; adapted, ranks: summed over its adapted matrices."""

    hidden: int
    query: int
    kv: int
    intermediate: int
    heads: int
    layers: int
    vocabulary: int
    parameters: int
    layer_weights: int
    linear_weights: int
    adapters: int = 0
    adapted: int = 0
    ranks: int = 0

    @property
    def embedding(self) -> int:
        """Parameters of one vocabulary-sized matrix."""
        return self.vocabulary * self.hidden


@functools.cache
def known() -> dict[str, dict]:
    """Sizes of models by hub id."""
    return yaml.safe_load(KNOWN.read_text())


def find_config(name: str, fields: dict | None = None, folder: str | None = None) -> PretrainedConfig:
    """A model's configuration.

    name: a hub id or a folder. fields: sizes that replace or make it (`model_type` is then needed for an unknown name).
    folder: where the model was built, if it is made from code. Raises ValueError when it can be found nowhere.
    """
    if name in known() or (fields and "model_type" in fields):
        sizes = {**known().get(name, {}), **(fields or {})}
        return AutoConfig.for_model(sizes.pop("model_type"), **sizes)
    try:
        adapters = adapter_folder(folder or name)
        path, revision = split_revision(adapter_base(adapters) if adapters else folder or name)
        config = AutoConfig.from_pretrained(path, revision=revision)
    except OSError as error:
        raise ValueError(
            f"model.model_name_or_path={name}: no sizes are known and no config.json can be read "
            f"({type(error).__name__}); known are {', '.join(sorted(known()))}; or give plan.architecture."
        ) from error
    for field, value in (fields or {}).items():
        setattr(config, field, value)
    return config


def architecture(config: PretrainedConfig, lora: PeftConfig | None = None, classifier: bool = False) -> Architecture:
    """Lay the model out on the meta device and count.

    Raises ValueError for a mixture of experts: the coefficients were measured on dense decoders.
    """
    text = config.get_text_config()
    if getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        raise ValueError(f"model_type={text.model_type}: mixtures of experts cannot be planned, dense decoders can.")
    auto = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    if classifier:
        config.num_labels = 1
    with torch.device("meta"):
        model = auto.from_config(config)
        count = sum(p.numel() for p in model.parameters())
        linear = sum(m.weight.numel() for m in model.base_model.modules() if isinstance(m, torch.nn.Linear))
        adapters = _adapters(model, lora) if lora else {}
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Architecture(
        hidden=text.hidden_size,
        query=text.num_attention_heads * head_dim,
        kv=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head_dim,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        parameters=count,
        layer_weights=linear // text.num_hidden_layers,
        linear_weights=linear,
        **adapters,
    )


def _adapters(model, lora: PeftConfig) -> dict[str, int]:
    adapted = get_peft_model(model, copy.deepcopy(lora))  # PEFT writes what "all-linear" means into it
    layers = model.config.get_text_config().num_hidden_layers
    modules = [m for m in adapted.modules() if isinstance(m, BaseTunerLayer)]
    return {
        "adapters": sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        "adapted": sum(m.in_features for m in modules) // layers,
        "ranks": sum(sum(m.r.values()) for m in modules) // layers,
    }
