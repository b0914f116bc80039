"""The memory planner against CUDA's allocator: `python -m evaluation.proofs.gpu.planner FOLDER` (on a CPU: `--cpu`).

Reads `<folder>/{policy,policy-reward}`, a model of 0.5 B parameters on a GPU; every row is two optimizer steps of the
real trainer from the real configuration, and prints one line of JSON after "RESULT ".
"""

import argparse
import gc
import json
from pathlib import Path

from evaluation.proofs.memory.check import CHECKPOINTED, LORA, MODELS, PLAIN, compose_run, trainer_of
from evaluation.proofs.memory.shapes import build_shape

MIB = 2**20
COMPILED = ("++args.compiled_generation=on",)
# Model, algorithm, rows, tokens of a prompt and of a row, further overrides. The first were wrong before.
RUNS = [
    ("policy", "dpo", 2, 0, 512, (*LORA, *CHECKPOINTED)),
    ("20M-wide", "grpo", 16, 64, 96, (*PLAIN, "++args.beta=0.0")),
    ("policy", "grpo", 16, 64, 192, ()),
    ("policy", "grpo", 16, 64, 192, (*LORA, *CHECKPOINTED)),
    ("policy", "ppo", 8, 64, 128, ()),
    ("policy", "dpo", 2, 0, 512, ()),
    ("policy", "sft", 4, 0, 512, ()),
    ("policy", "sft", 4, 0, 512, CHECKPOINTED),
    ("policy", "sft", 4, 0, 512, (*LORA, *CHECKPOINTED)),
    ("policy", "reward", 2, 0, 512, ()),
    ("policy", "ppo", 8, 64, 128, LORA),
    ("policy", "grpo", 64, 64, 128, (*CHECKPOINTED, *PLAIN, *COMPILED)),
]


def on_device(cuda: bool, hopper: bool = False) -> tuple[str, ...]:
    """Overrides for where a run happens."""
    flag = str(cuda).lower()
    dtype = "bfloat16" if cuda else "float32"
    place = (f"++args.use_cpu={str(not cuda).lower()}", f"++args.bf16={flag}", f"++model.dtype={dtype}")
    return (*place, "plan.card=h100") if hopper else place


def measure(folder: Path, run: tuple, cuda: bool) -> dict:
    """Predicted and measured MiB of a run; measured is None on a CPU, where `proofs.memory.check` measures."""
    import torch

    from rlhf_trl_ext.memory.plan import plan

    hopper = cuda and torch.cuda.get_device_capability()[0] >= 9
    run = (*run[:5], (*run[5], *on_device(cuda, hopper)))
    prediction, _, _ = plan(compose_run(folder, run))
    before = torch.cuda.memory_allocated() if cuda else 0
    trainer = trainer_of(folder, run)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    measured = (torch.cuda.max_memory_allocated() - before) / MIB if cuda else None
    del trainer
    torch._dynamo.reset()
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return {"predicted": prediction.peak / MIB, "measured": measured, "phase": prediction.peak_phase}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--first", type=int, default=len(RUNS), help="rows")
    options = parser.parse_args()
    dtype = "float32" if options.cpu else "bfloat16"
    runs = RUNS[: options.first]
    if any(run[0] == "20M-wide" for run in runs):
        build_shape(options.folder / "20M-wide", dtype=dtype, **MODELS["20M-wide"])
        build_shape(options.folder / "20M-wide-reward", dtype=dtype, labels=1, **MODELS["20M-wide"])
    for run in runs:
        row = {"model": run[0], "algorithm": run[1], "rows": run[2], "tokens": run[4], "further": " ".join(run[5])}
        try:
            row |= measure(options.folder, run, not options.cpu)
        except Exception as error:  # the other rows count all the same
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        print("RESULT " + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
