"""Export of a policy or reward model to the formats of other runtimes, by their own builders."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_trl_ext.models.loading import ModelArguments

FILES = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]  # of a hub id
HEAD_SIZE = 16  # onnxruntime-genai's attention takes multiples
EXAMPLE = (2, 9)  # sequences and tokens that a graph is traced with
INPUTS = ("input_ids", "attention_mask")


def folder_of(model: ModelArguments, cache: Path) -> str:
    """The folder of a whole model: adapters are merged below `cache`, a hub id's files downloaded."""
    path = model.checkpoint(cache)
    return path if Path(path).is_dir() else snapshot_download(path, revision=model.model_revision, allow_patterns=FILES)


def is_reward_model(policy: str) -> bool:
    architectures = AutoConfig.from_pretrained(policy).architectures or []
    return any("SequenceClassification" in name for name in architectures)


def load(policy: str, precision: str = "fp32") -> PreTrainedModel:
    """The model in transformers, in float32, or float16 where that is exported."""
    auto = AutoModelForSequenceClassification if is_reward_model(policy) else AutoModelForCausalLM
    dtype = torch.float16 if precision == "fp16" else torch.float32
    return auto.from_pretrained(policy, dtype=dtype, attn_implementation="eager").eval()


def refusal(policy: str, format: str, precision: str) -> str | None:
    """Why an export cannot be built, in one sentence, as far as configuration and machine show; None where it can."""
    _, precisions, packages = FORMATS[format]
    if precision not in precisions:
        return f"precision={precision} with format={format}: allowed are {', '.join(precisions)}."
    for name in packages:
        try:
            __import__(name)
        except ImportError:
            return f"format={format}: {name} is not installed; pip install 'rlhf-trl-ext[export]'."
    if format == "tensorrt":
        import onnxruntime

        if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers() or not torch.cuda.is_available():
            return "format=tensorrt: it needs onnxruntime-gpu with TensorRT and a GPU; give format=onnx-model."
    if format != "onnx":
        return None
    if is_reward_model(policy):
        return "format=onnx is for policies that generate; give format=onnx-model for a reward model."
    config = AutoConfig.from_pretrained(policy)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size % HEAD_SIZE:
        return (
            f"format=onnx: the head size {size} of policy={policy} is no multiple of {HEAD_SIZE}, which the "
            "attention of onnxruntime-genai needs; give format=onnx-model."
        )
    return None


def export(policy: str, format: str, precision: str, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Build an export with its tokenizer in `output`, which becomes whole or not at all.

    Raises ValueError with a sentence where the builder cannot.
    """
    if reason := refusal(policy, format, precision):
        raise ValueError(reason)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as aside:
        FORMATS[format][0](policy, precision, Path(aside))
        tokenizer.save_pretrained(aside)
        AutoConfig.from_pretrained(policy).save_pretrained(aside)
        if output.exists():
            shutil.rmtree(output)
        shutil.copytree(aside, output)


def _onnx(policy: str, precision: str, folder: Path) -> None:
    """One graph with a KV cache, by onnxruntime-genai's builder in a process of its own."""
    import onnxruntime_genai

    provider = "cuda" if precision == "fp16" and onnxruntime_genai.is_cuda_available() else "cpu"
    words = ["-i", policy, "-o", str(folder), "-p", precision, "-e", provider, "-c", str(folder / "cache")]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    if done.returncode or not (folder / "genai_config.json").exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise ValueError(f"format=onnx: onnxruntime-genai cannot build policy={policy} ({reason}); try onnx-model.")


def _onnx_model(policy: str, precision: str, folder: Path) -> None:
    """The forward pass, by transformers' exporter; int8 by onnxruntime's dynamic quantization."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model = load(policy, precision)
    exported = OnnxExporter().export(model, _example(model), OnnxConfig(dynamic=True))
    whole = folder / ("whole.onnx" if precision == "int8" else "model.onnx")
    OnnxExporter.save_program(exported.program, whole)
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(whole, folder / "model.onnx", weight_type=QuantType.QInt8)
        for path in folder.glob("whole.onnx*"):
            path.unlink()


def _torch(policy: str, precision: str, folder: Path) -> None:
    """The forward pass, by transformers' exporter for torch.export."""
    from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

    model = load(policy, precision)
    exported = DynamoExporter().export(model, _example(model), DynamoConfig(dynamic=True))
    torch.export.save(exported.program, folder / "model.pt2")


class _Logits(torch.nn.Module):
    """A model as a function of two tensors, which is what torch.jit traces."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def _torchscript(policy: str, precision: str, folder: Path) -> None:
    """The forward pass, traced."""
    model = load(policy, precision)
    with torch.no_grad():
        traced = torch.jit.trace(_Logits(model), tuple(_example(model).values()), check_trace=False)
    traced.save(str(folder / "model.ts"))


def _example(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    rows, width = EXAMPLE
    ids = torch.arange(rows * width).reshape(rows, width) % model.config.vocab_size
    return dict(zip(INPUTS, (ids, torch.ones_like(ids)), strict=True))


# format -> (builder, precisions, packages)
FORMATS: dict[str, tuple[Callable, tuple[str, ...], tuple[str, ...]]] = {
    "onnx": (_onnx, ("fp32", "fp16", "int8", "int4"), ("onnxruntime_genai",)),
    "onnx-model": (_onnx_model, ("fp32", "fp16", "int8"), ("onnx", "onnxscript", "onnxruntime")),
    "torch": (_torch, ("fp32", "fp16"), ()),
    "torchscript": (_torchscript, ("fp32", "fp16"), ()),
    "tensorrt": (_onnx_model, ("fp32", "fp16"), ("onnx", "onnxscript", "onnxruntime")),
}


def read_record(folder: Path) -> dict:
    """What `launchers.export` wrote of an export. Raises ValueError for a folder without."""
    try:
        return json.loads((folder / "export.json").read_text())
    except (OSError, ValueError):
        raise ValueError(f"{folder} holds no verified export (export.json): write one with launchers.export.") from None
