"""Models and tokenizers as they are named: a folder, a hub id, `org/name@revision`, or adapters on a base."""

from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_trl_ext.configuration.paths import TOKENIZERS, adapter_base, adapter_folder, split_revision


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; of adapters without one, their base's. Raises ValueError for adapters without base."""
    if folder := adapter_folder(path, revision):
        place = _tokenizer_place(folder)
        return AutoTokenizer.from_pretrained(folder) if place == folder else load_tokenizer(place)
    name, own = split_revision(path)
    return AutoTokenizer.from_pretrained(name, revision=own or revision)


def _tokenizer_place(folder: str) -> str:
    return folder if any(Path(folder, file).exists() for file in TOKENIZERS) else adapter_base(folder)


def load_policy(path: str, revision: str | None = None, **settings) -> PreTrainedModel:
    """The causal language model in `path`; adapters are merged into their base. settings: of `from_pretrained`.

    Raises ValueError for adapters of another kind of model, or whose base is not there.
    """
    if folder := adapter_folder(path, revision):
        model = load_adapter(folder, classifier=False, **settings)
        untie(model)
        return _named(model.merge_and_unload(), folder)
    name, own = split_revision(path)
    return AutoModelForCausalLM.from_pretrained(name, revision=own or revision, **settings)


def load_classifier(path: str, revision: str | None = None, **settings) -> PreTrainedModel:
    """The sequence classifier in `path`, with one label; adapters are merged into their base."""
    if folder := adapter_folder(path, revision):
        return _named(load_adapter(folder, classifier=True, **settings).merge_and_unload(), folder)
    name, own = split_revision(path)
    settings |= {"revision": own or revision, "num_labels": 1}
    return AutoModelForSequenceClassification.from_pretrained(name, **settings)


def _named(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    model.config._name_or_path = model.name_or_path = _tokenizer_place(folder)  # where TRL looks for its tokenizer
    return model.requires_grad_(True)  # PEFT froze the base: a critic goes on from it


def load_adapter(path: str, classifier: bool, **settings) -> PeftModel:
    """A folder of adapters on their base, unmerged.

    Raises ValueError where they are of the other kind or the base is not there.
    """
    base, kind = adapter_base(path), str(PeftConfig.from_pretrained(path).task_type).rpartition(".")[2]
    if kind != (expected := "SEQ_CLS" if classifier else "CAUSAL_LM"):
        raise ValueError(f"{path} holds adapters for {kind}, and {expected} is needed here.")
    auto = AutoPeftModelForSequenceClassification if classifier else AutoPeftModelForCausalLM
    if base == PeftConfig.from_pretrained(path).base_model_name_or_path:
        return auto.from_pretrained(path, **settings, **({"num_labels": 1} if classifier else {}))
    whole = load_classifier(base, **settings) if classifier else load_policy(base, **settings)
    return auto._target_peft_class.from_pretrained(whole, path)


def untie(model: PeftModel) -> None:
    """Give the LM head weights of its own where an adapter changes the tied ones."""
    base = model.get_base_model()
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    adapted = [module for module in (embeddings, head) if hasattr(module, "get_base_layer")]
    if not adapted or head is None or not base.config.tie_word_embeddings:
        return
    layer = head.get_base_layer() if head in adapted else head
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    base.config.tie_word_embeddings = False
