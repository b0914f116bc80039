"""What an engine of vLLM in the process of a trainer needs besides TRL: its length, its seed, weights for a CPU."""

import contextlib

import torch
from transformers import set_seed


@contextlib.contextmanager
def unpacked_on_cpu(args):
    """While inside, an engine that is built for `args` on a CPU multiplies by its weights as they are.

    By default vLLM packs them for its own kernels and drops them. New weights then have nowhere to go (`'Parameter'
    object has no attribute 'weight_loader'`), or leave the packed ones as they were.
    """
    if not (args.use_vllm and args.use_cpu):
        yield
        return
    from vllm.model_executor.layers import utils

    packing = utils.dispatch_cpu_unquantized_gemm
    keep_unpacked()
    try:
        yield
    finally:
        utils.dispatch_cpu_unquantized_gemm = packing


def keep_unpacked() -> None:
    """Let engines that this process builds from now on multiply by their weights as they are; a plugin of vLLM."""
    from vllm.model_executor.layers import utils

    packing = utils.dispatch_cpu_unquantized_gemm

    def linear(layer, remove_weight):
        if layer.weight.ndim != 2:
            return packing(layer, remove_weight)
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = linear


def check_length_and_seed(trainer) -> None:
    """Let samples follow `args.seed`: an engine seeds its process with its own number, the same in every run.

    Raises ValueError where the engine is too short for the longest prompt and a completion, which it would cut.
    """
    args = trainer.args
    if not trainer._is_vlm:
        prompt, completion = trainer._longest_prompt(), args.max_completion_length or 1  # None: to the end
        length = trainer.vllm_generation.llm.llm_engine.model_config.max_model_len
        if prompt + completion > length:
            raise ValueError(
                f"vllm_max_model_length={length}: the longest prompt has {prompt} tokens and max_completion_length is "
                f"{completion}; give {prompt + completion}, or shorter prompts or completions."
            )
    set_seed(args.seed + trainer.accelerator.process_index // args.vllm_tensor_parallel_size)  # one for an engine
