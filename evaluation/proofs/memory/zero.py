"""ZeRO's memory of a process at 1, 2 and 4 processes against the formulas: `python -m evaluation.proofs.memory.zero`.

Two steps of SFT on one row of 64 tokens, so that weights and states are what counts, in float32 on CPU. Measured: the
resident memory of a process, at its peak during training and after it, less what is resident before a model is loaded;
the mean over processes. Four processes on two cores take minutes.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from evaluation.proofs.memory.check import MODELS, compose_run, trainer_of, warm_up
from evaluation.proofs.memory.resident import ALLOCATOR, reset_peak, status


def the_run(stage: int, processes: int, model: str = "31M") -> tuple:
    return model, "sft", 1, 0, 64, (f"deepspeed=zero{stage}", f"num_gpus={processes}")


def work(folder: Path, stage: int, processes: int) -> None:
    """One process of a run; writes its MiB to a file of its own."""
    from rlhf_trl_ext.zero import runtime as zero

    run = the_run(stage, processes)
    zero.start(compose_run(folder, run).args)
    warm_up()
    before = status("VmRSS")
    trainer = trainer_of(folder, run)
    if trainer.args.world_size != processes:
        raise AssertionError(f"{trainer.args.world_size} processes run, not {processes}")
    reset_peak()
    trainer.train()
    measured = {"peak": status("VmHWM") - before, "after": status("VmRSS") - before}
    (folder / f"rank-{trainer.args.process_index}.json").write_text(json.dumps(measured))


def measure(folder: Path, stage: int, processes: int) -> dict:
    """Means over the processes of a run, in MiB."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "evaluation.proofs.memory.zero"]
    if processes > 1:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        launch += ["--main_process_port", port, "--mixed_precision", "no", "--num_machines", "1"]
        launch += ["--dynamo_backend", "no", "-m", "evaluation.proofs.memory.zero"]
    command = [*launch, "--work", str(folder), str(stage), str(processes)]
    streams = {"stderr": subprocess.STDOUT, "env": {**os.environ, **ALLOCATOR}, "check": False}
    with open(folder / "log.txt", "w") as log:
        done = subprocess.run(command, stdout=log, **streams)
    if done.returncode:
        raise RuntimeError(f"ZeRO-{stage} with {processes} processes:\n" + (folder / "log.txt").read_text()[-2000:])
    rows = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]
    return {key: statistics.mean(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(Path(options.work[0]), int(options.work[1]), int(options.work[2]))
    from evaluation.proofs.memory.shapes import build_shape
    from rlhf_trl_ext.memory.plan import plan

    with tempfile.TemporaryDirectory() as name:
        build_shape(Path(name) / "31M", **MODELS["31M"])
        for stage in options.stages:
            first = None
            for processes in options.processes:
                prediction, _, _ = plan(compose_run(Path(name), the_run(stage, processes)))
                measured = measure(Path(name), stage, processes)
                kinds = prediction.held["policy"]  # ZeRO-3 keeps its share of the gradients
                states = (kinds["weights"] + kinds["optimizer"] + kinds["gradients"] * (stage == 3)) / 2**20
                first = first or (states, measured["after"])
                print(
                    f"ZeRO-{stage} {processes} processes: peak predicted {prediction.peak / 2**20:5.0f} MiB measured "
                    f"{measured['peak']:5.0f} MiB; fall of weights and states predicted {first[0] - states:4.0f} MiB, "
                    f"of the memory after training measured {first[1] - measured['after']:4.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
