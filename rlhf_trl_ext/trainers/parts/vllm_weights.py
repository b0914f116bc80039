"""Weights that vLLM can be sent on a CPU."""

import contextlib

import torch


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
