"""Sampling with a compiled decode step in TRL's online trainers, and gradient checkpointing that leaks no hooks."""

import contextlib
import logging
import types

from datasets import Dataset
from transformers import PreTrainedModel

from rlhf_trl_ext.models.compiled_decoding import (
    CompiledDecoding,
    compile_settings,
    decode_steps,
    wants_compiled,
    why_not_compiled,
)

logger = logging.getLogger(__name__)
TOKENIZED = 2048  # of a data set's prompts, those with the most characters


class CompiledGeneration:
    """A mixin for `trl.GRPOTrainer` and `trl.RLOOTrainer`: transformers' `generate` with its decode step compiled.

    TRL switches the compiler off; on a GPU most of the time of a step then goes into launching kernels. One graph
    serves a run: the cache holds the longest prompt of the data sets and `max_completion_length`, smaller batches are
    padded inside the model. Samples are those of `compiled_generation=off` up to rounding. Where compiling is
    impossible, the run goes on without and says why once. Dropout stays active in sampling, as in TRL; evaluation is
    then a second graph.
    """

    _decoding: CompiledDecoding | None = None
    _decided = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for module in self.model.modules():
            if isinstance(module, PreTrainedModel):
                register_hooks_once(module)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        compiled = contextlib.nullcontext()
        if self.compiles():
            compiled = self._decoding.batch(len(prompt_ids), self._length(max(map(len, prompt_ids))))
        with compiled:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    def compiles(self) -> bool:
        """Whether the next batch is sampled with a compiled decode step; decided once for a run."""
        if not self._decided:
            self._decide()
        return self._decoding is not None

    def _decide(self) -> None:
        mode = getattr(self.args, "compiled_generation", "auto")  # TRL's own arguments have none
        if mode == "auto" and self.accelerator.device.type == "cuda" and not self.state.max_steps:
            return  # an evaluation before training
        self._decided = True
        steps = decode_steps(self.args, self.state.max_steps)  # of the whole run, also where it is resumed
        if self.use_vllm or not wants_compiled(mode, self.accelerator.device.type, steps):
            return
        base = self._base()
        reason = self._why_not() or why_not_compiled(base)
        if reason:
            logger.warning("args.compiled_generation=%s: sampling is not compiled, as %s.", mode, reason)
            return
        for name, value in compile_settings(self.accelerator.device).items():
            setattr(self.generation_config, name, value)
        rows = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if self.eval_dataset is not None:
            rows = max(rows, self.args.per_device_eval_batch_size)
        self._decoding = CompiledDecoding(base, rows, self._length(self._longest_prompt()))

    def _why_not(self) -> str | None:
        """What in the trainer forbids it."""
        if self._dist.is_zero3 or self._dist.is_fsdp:
            return "ZeRO-3 and FSDP gather the weights anew for every batch"
        if self._is_vlm:
            return "the model takes images"
        if self.use_transformers_continuous_batching:
            return "continuous batching has a cache of its own"
        if any(getattr(self, name, None) for name in ("tools", "environment_factories", "rollout_func")):
            return "tools and environments make prompts grow from turn to turn"
        if self.generation_config.cache_implementation or self.generation_config.num_beams not in (None, 1):
            return "args.cache_implementation or a beam search is given"
        configs = getattr(self.accelerator.unwrap_model(self.model), "peft_config", {}).values()
        if any(config.is_prompt_learning for config in configs):
            return "prompt learning adds rows to the cache"
        return None

    def _base(self) -> PreTrainedModel:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "peft_config") else model

    def _length(self, prompt: int) -> int:
        """Tokens of the cache for a batch whose longest prompt has `prompt` tokens."""
        multiple = self.pad_to_multiple_of or 1
        return prompt + -prompt % multiple + self.generation_config.max_new_tokens

    def _longest_prompt(self) -> int:
        """Tokens of the longest prompt of the data sets, 1 for streams: of many prompts, the longest texts are read."""
        longest = 1
        held_out = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        for dataset in (self.train_dataset, *held_out.values()):
            if isinstance(dataset, Dataset) and "prompt" in dataset.column_names and len(dataset):
                prompts = sorted(dataset["prompt"], key=_characters)[-TOKENIZED:]
                longest = max(longest, *map(len, self._tokenize_prompts(prompts)[0]))
        return longest


def _characters(prompt: str | list[dict]) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(str(message["content"])) for message in prompt)


def register_hooks_once(model: PreTrainedModel) -> None:
    """Let `model.enable_input_require_grads` replace the hooks that it registered before.

    TRL switches checkpointing off and on around every pass without gradients. transformers registers a hook on the
    embedding each time and removes none: two more a step, and compiled code, which depends on them, is compiled anew.
    """
    model.enable_input_require_grads = types.MethodType(enable_input_require_grads, model)


def enable_input_require_grads(self: PreTrainedModel) -> None:
    """The method of this name of transformers, which is found by it when a model is pickled."""
    for hook in vars(self).get("_require_grads_hooks", ()):
        hook.remove()
    type(self).enable_input_require_grads(self)
