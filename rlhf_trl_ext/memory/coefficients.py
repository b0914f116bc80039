"""Measured coefficients of activations and logits: read from, and written to, coefficients.yaml."""

import functools
from importlib.metadata import version
from pathlib import Path

import yaml

PATH = Path(__file__).with_name("coefficients.yaml")
WIDTHS = ("hidden", "query", "kv", "intermediate", "heads", "length")
HEADER = """\
# Bytes per token (times a width), measured by `evaluation.proofs.memory.coefficients --write`; not edited by hand.
# Live tensors of float32, autocast (float32 weights, bfloat16 products) and bfloat16 Llamas of eight shapes, on a CPU.
# error: the largest relative error of the fit. On CUDA TRL's LM head folds its tiles in a kernel: there only the tile
# itself counts.
"""


@functools.cache
def coefficients() -> dict:
    """Measured coefficients by precision, then full or lora, then kind of memory."""
    return yaml.safe_load(PATH.read_text())


def save(fitted: dict) -> None:
    """Write measured coefficients with the versions that they were measured on."""
    measured = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    PATH.write_text(HEADER + yaml.safe_dump({"versions": measured, **fitted}, sort_keys=False, default_flow_style=None))
