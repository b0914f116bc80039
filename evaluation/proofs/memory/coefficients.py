"""Measure what activations and logits cost: `python -m evaluation.proofs.memory.coefficients --write`.

Live tensors are counted at every operation of a step, on small Llamas of many shapes.
A layer's bytes per token are linear in its widths (hidden, queries, keys or values, intermediate, heads); the
coefficients are the non-negative least-squares fit, and its largest error is kept beside them. Nothing here trains a
model that `evaluation.proofs.memory.check` compares with, and nothing measured there comes back here.

Saved: held from forward to backward. Working: what a pass needs beyond that, at its peak.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import nnls

from evaluation.proofs.memory.cases import ADAPTED, MODES, SHAPES, Case, full_cases, lora_cases
from evaluation.proofs.memory.tracking import LiveBytes
from rlhf_trl_ext.memory.coefficients import PATH, WIDTHS, save


def saved(case: Case, checkpointing: bool = False) -> int:
    """Bytes held for backward, parameters and what they share storage with left out."""
    model = case.model()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    values = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            values[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = case.run(model)
    return sum(storage.nbytes() for storage in values.values()) * bool(output.numel())


def peak(work: Callable[[], object], model) -> int:
    """Bytes of live tensors at the peak of `work`, those of the model left out."""
    with LiveBytes().leave_out(model) as live:
        work()
    return live.peak


def fit(rows: list[list[float]], bytes_: list[float], of: list[float] | None = None) -> tuple[list[float], float]:
    """Non-negative coefficients, and the largest error as a share of `of` (the measured bytes themselves)."""
    a, b = np.array(rows, dtype=float), np.array(bytes_, dtype=float)
    scale = 1 / np.array(of or bytes_, dtype=float)
    solution, _ = nnls(a * scale[:, None], b * scale)
    return [round(float(x), 3) for x in solution], round(float(np.abs((a @ solution - b) * scale).max()), 4)


def layer(cases: list[Case]) -> dict:
    """Saved bytes of a layer per token, of what surrounds the layers, and the working bytes of backward and forward."""
    once, slope, all_saved, backward, forward = [], [], [], [], []
    for case in cases:
        few, many = (saved(replace(case, shape=replace(case.shape, layers=layers))) for layers in (1, 3))
        slope.append((many - few) / 2)
        once.append(few - slope[-1])
        all_saved.append(saved(case))
        model = case.model()

        def step(case=case, model=model):
            case.run(model).sum().backward()

        def score(case=case, model=model):
            with torch.no_grad():
                case.run(model)

        backward.append(peak(step, model) - all_saved[-1])
        forward.append(peak(score, model))
    rows = [[*(case.tokens * width for width in case.widths()), case.layer_weights()] for case in cases]
    fitted = {}
    for name, measured in (("saved", slope), ("backward", backward), ("forward", forward)):
        values, error = fit(rows, measured, all_saved if name == "backward" else None)
        names = [*WIDTHS, *ADAPTED][: len(rows[0]) - 1]
        fitted[name] = {**dict(zip(names, values, strict=False)), "weights": values[-1], "error": error}
    around = [[case.tokens * case.shape.hidden, case.tokens * case.length] for case in cases]
    values, error = fit(around, once, all_saved)
    fitted["around"] = {"hidden": values[0], "length": values[1], "error": error}
    return fitted


def checkpointed(mode: str) -> dict:
    """Bytes per token, layer and hidden unit that are held with gradient checkpointing."""
    rows, bytes_ = [], []
    for shape in SHAPES[:4]:
        case = Case(shape, mode)
        low, high = (saved(replace(case, shape=replace(shape, layers=n)), checkpointing=True) for n in (1, 3))
        rows.append([case.tokens * shape.hidden])
        bytes_.append((high - low) / 2)
    values, error = fit(rows, bytes_)
    return {"hidden": values[0], "error": error}


def head(mode: str) -> dict:
    """TRL's fused LM head: bytes per token and column of a tile beyond the tile itself, forward and backward."""
    from trl.kernels import ChunkedLogProbFunction

    dtype, autocast = MODES[mode]
    rows, forward, backward = [], [], []
    for tokens, vocabulary in itertools.product((512, 1024), (2048, 4096)):
        hidden = torch.randn(tokens, 64, dtype=dtype, requires_grad=True)
        weight = torch.nn.Parameter(torch.randn(vocabulary, 64, dtype=dtype))
        tile = tokens * vocabulary * (2 if autocast else 4)  # allocated whole, but no more of it is touched

        def run(back, hidden=hidden, weight=weight, tokens=tokens, vocabulary=vocabulary):
            labels = torch.randint(0, vocabulary, (tokens,))
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = ChunkedLogProbFunction.apply(
                    hidden, weight, None, labels, 1.0, vocabulary, None, 1.0, ("log_probs", "entropy")
                )
            if back:
                out[0].sum().backward()

        holder = torch.nn.Module()
        holder.weight = weight
        rows.append([tokens * vocabulary])
        forward.append(peak(lambda run=run: run(False), holder) - tile)
        backward.append(peak(lambda run=run: run(True), holder) - tile - weight.numel() * 4)
    return {"forward": fit(rows, forward)[0][0], "backward": fit(rows, backward)[0][0], "error": fit(rows, backward)[1]}


def materialised() -> dict:
    """Logits that are built whole in float32, as TRL once did: bytes per token and column, forward and backward."""
    from trl.trainer.utils import selective_log_softmax

    rows, bytes_ = [], []
    for tokens, vocabulary in itertools.product((256, 512), (2048, 4096)):
        low = torch.randn(4, tokens, vocabulary, dtype=torch.bfloat16, requires_grad=True)
        labels = torch.randint(0, vocabulary, (4, tokens))

        def run(low=low, labels=labels):
            selective_log_softmax(low.float() / 0.9, labels).sum().backward()

        rows.append([4 * tokens * vocabulary])
        bytes_.append(peak(run, torch.nn.Module()))
    values, error = fit(rows, bytes_)
    return {"bytes": values[0], "error": error}


def generation(mode: str) -> dict:
    """Sampling: bytes per row and vocabulary; per position, layer and key width (the cache); per position and query."""
    rows, bytes_ = [], []
    shapes = ((SHAPES[0], 2, 1024), (SHAPES[1], 4, 8192), (SHAPES[5], 6, 2048), (SHAPES[2], 3, 4096))
    for (batch, length), (shape, layers, vocabulary) in itertools.product(((8, 64), (16, 24)), shapes):
        case = Case(replace(shape, layers=layers, vocabulary=vocabulary), mode)
        model = case.model().eval()
        ids = torch.randint(2, vocabulary, (batch, 8))
        mask = torch.ones_like(ids)
        mask[0, :4] = 0
        settings = {"min_new_tokens": length, "max_new_tokens": length, "do_sample": True}

        @torch.no_grad()
        def sample(model=model, ids=ids, mask=mask, settings=settings):
            with torch.autocast("cpu", torch.bfloat16, enabled=MODES[mode][1]):
                model.generate(ids, attention_mask=mask, **settings)

        positions = batch * (8 + length)
        cache, query = positions * layers * shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim
        rows.append([batch * vocabulary, cache, positions * query, layers * case.layer_weights()])
        bytes_.append(peak(sample, model))
    values, error = fit(rows, bytes_)
    return {**dict(zip(("vocabulary", "cache", "query", "weights"), values, strict=True)), "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"replace {PATH.name}")
    options = parser.parse_args()
    fitted = {}
    for mode in MODES:
        fitted[mode] = {
            "full": layer(full_cases(mode)),
            "lora": layer(lora_cases(mode)),
            "checkpointed": checkpointed(mode),
            "head": head(mode),
            "generation": generation(mode),
        }
        print(mode, fitted[mode], flush=True)
    fitted["materialised"] = materialised()
    print(fitted["materialised"])
    if options.write:
        save(fitted)


if __name__ == "__main__":
    main()
