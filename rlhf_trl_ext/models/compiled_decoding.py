"""Sampling with a compiled decode step: one static cache and one graph for all batches of a run."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch._inductor.config
from torch import nn
from transformers import CompileConfig, PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

# Compiling takes about as long as this many decode steps gain, whatever the depth: 30 s against 20 ms a step on an H100
# for a model of 24 layers.
STEPS_THAT_PAY = 2000
ROUNDING = 64  # tokens, to which an unforeseen longer prompt enlarges the cache


def decode_steps(args, max_steps: int) -> int:
    """Decode steps of a run of `max_steps` optimizer steps. args: `trl.GRPOConfig` or `trl.RLOOConfig`."""
    batches = max_steps * args.gradient_accumulation_steps // (args.steps_per_generation * args.num_iterations)
    return batches * args.max_completion_length


def wants_compiled(choice: str, device: str, steps: float) -> bool:
    """Whether to compile. choice: on, off, or auto, which does on CUDA when `steps` decode steps pay for it."""
    return choice == "on" or (choice == "auto" and device == "cuda" and steps >= STEPS_THAT_PAY)


def compile_settings(device: torch.device) -> dict:
    """Fields of a `GenerationConfig` that make `generate` compile its decode step; on CUDA with CUDA graphs."""
    settings = {"cache_implementation": "static", "disable_compile": False}
    if device.type != "cuda":
        settings["compile_config"] = CompileConfig(mode="default", fullgraph=False)
        settings["compile_config"]._compile_all_devices = True
    return settings


def why_not_compiled(model: PreTrainedModel) -> str | None:
    """Why the decode step of `model`, without adapters, cannot be compiled; None if it can."""
    name = type(model).__name__
    if not model._can_compile_fullgraph:
        return f"{name} cannot be compiled"
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_compileable:
        return f"a base quantised by {quantizer.quantization_config.quant_method} cannot be compiled"
    if len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1:
        return "the model is spread over several devices"
    layers = StaticCache(model.config, max_cache_len=8).layers
    if any(type(layer) is not StaticLayer for layer in layers):
        return f"{name} has layers with a sliding window or a state, which compile anew as they fill"
    return None


class CompiledDecoding:
    """Lets `model.generate` run with one static cache, padded to the same rows in every batch.

    model: a causal language model without adapters around it. rows, length: of the largest batch foreseen, prompt and
    completion; a larger one enlarges the cache, which compiles once more. Only the model sees the rows added: tokens
    are drawn for the real ones alone, so that random numbers are consumed as without padding.
    """

    def __init__(self, model: PreTrainedModel, rows: int, length: int):
        self.model, self.rows, self.length = model, rows, length
        self.cache: StaticCache | None = None

    @contextlib.contextmanager
    def batch(self, rows: int, length: int) -> Iterator[None]:
        """Inside, `generate` may be called once, with `rows` prompts; length: of prompt and completion, at most."""
        self._make_room(rows, length)
        model = self.model
        prepare, update = model.prepare_inputs_for_generation, model._update_model_kwargs_for_generation
        own = {
            "_prepare_static_cache": lambda **_: self._empty_cache(),
            "prepare_inputs_for_generation": lambda *args, **kwargs: self._padded(prepare(*args, **kwargs)),
            "_update_model_kwargs_for_generation": _without_padding(update, rows),
        }
        drops_out = _drops_out(model)
        # Dropout draws the numbers that it draws without a compiler.
        randomness = torch._inductor.config.patch(fallback_random=True) if drops_out else contextlib.nullcontext()
        with _evaluated(model, drops_out), _replaced(model, own), randomness:
            yield

    def _make_room(self, rows: int, length: int) -> None:
        if length > self.length:
            length += -length % ROUNDING
        if rows > self.rows or length > self.length:
            self.rows, self.length, self.cache = max(rows, self.rows), max(length, self.length), None

    def _empty_cache(self) -> StaticCache:
        """One cache for all batches: CUDA graphs are bound to its addresses."""
        if self.cache is None:
            self.cache = StaticCache(self.model.config, max_cache_len=self.length)
        self.cache.reset()
        return self.cache

    def _padded(self, inputs: dict) -> dict:
        """The inputs of a forward pass with the first row repeated until there are `self.rows`."""
        missing = self.rows - len(inputs["input_ids"])
        if not missing:
            return inputs
        names = [name for name in ("input_ids", "attention_mask", "position_ids") if inputs.get(name) is not None]
        added = {name: inputs[name][:1].expand(missing, *inputs[name].shape[1:]) for name in names}
        return {**inputs, **{name: torch.cat([inputs[name], added[name]]) for name in names}}


def _without_padding(update: Callable, rows: int) -> Callable:
    def updated(outputs, *args, **kwargs):
        outputs.logits = outputs.logits[:rows]
        return update(outputs, *args, **kwargs)

    return updated


@contextlib.contextmanager
def _replaced(model: nn.Module, own: dict) -> Iterator[None]:
    """Attributes of the instance, which hide the methods of its class."""
    vars(model).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(model)[name]


@contextlib.contextmanager
def _evaluated(model: nn.Module, drops_out: bool) -> Iterator[None]:
    """All modules in evaluation mode, which the graph depends on, unless dropout makes that another model."""
    modes = {} if drops_out else {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _drops_out(model: nn.Module) -> bool:
    return any(
        (isinstance(module, nn.Dropout) and module.p) or getattr(module, "attention_dropout", 0)
        for module in model.modules()
    )
