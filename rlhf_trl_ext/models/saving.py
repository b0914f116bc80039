"""A trained model on disk, loadable without adapters: LoRA weights are merged, and the merged model is compared."""

from pathlib import Path

import torch
from peft import PeftConfig
from torch import Tensor

from rlhf_trl_ext.models.pretrained import load_adapter, untie
from rlhf_trl_ext.zero.runtime import whole_weights

TOLERANCE = {torch.float32: 0.01}  # of the largest logit
OF_HALF_PRECISION = 0.1  # where a merged weight is rounded


def save(trainer, folder: Path, merge: bool = True) -> None:
    """Save a model that loads without adapters: LoRA weights go to `folder/adapter` and, merged, to `folder`.

    The base is loaded again unquantised for the merge, so a QLoRA run saves full-precision weights. merge: else there
    are only the adapters. Raises ValueError where the merged model does not compute what the adapter does.
    """
    if not getattr(trainer.model, "peft_config", None):
        trainer.save_model(str(folder))
    else:
        trainer.save_model(str(folder / "adapter"))
        if merge and trainer.accelerator.is_main_process:
            with whole_weights():  # the other processes do not load
                merge_adapter(folder / "adapter", folder)
            trainer.processing_class.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()


def merge_adapter(adapter: Path, folder: Path) -> None:
    """Write the model that an adapter and its base make.

    Raises ValueError where its logits on a few rows are not the adapter's. Embeddings that a base ties to its LM head
    are untied before, as adapters on one of them do not belong to the other.
    """
    classifies = str(PeftConfig.from_pretrained(adapter).task_type).endswith("SEQ_CLS")
    loaded = load_adapter(str(adapter), classifies, dtype="auto").eval()
    expected = _logits(loaded)
    untie(loaded)
    merged = loaded.merge_and_unload()
    difference = (_logits(merged) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    if not difference <= TOLERANCE.get(merged.dtype, OF_HALF_PRECISION):
        raise ValueError(
            f"model.merge_adapter=true: the merged model's logits differ from those of {adapter} by {difference:.0%}; "
            "the adapter is saved, give model.merge_adapter=false to keep it alone."
        )
    merged.save_pretrained(folder)


@torch.no_grad()
def _logits(model) -> Tensor:
    """On four rows of eight tokens that are spread over the vocabulary."""
    count = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(32, device=model.device).view(4, 8) * max(1, count // 32) % count
    model.config.pad_token_id = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
