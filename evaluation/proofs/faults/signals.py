"""Sends signals to pipelines and sweeps at random moments: `python -m evaluation.proofs.faults.signals --signals 20`.

Each command is started as a user would, gets one signal at a moment drawn uniformly over the seconds of its undisturbed
twin, and is started again. Five seconds after the signal no process of it may be left, no stage may be recorded as
finished that is not what the twin's is, and the second start must end with the twin's weights, bit for bit.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from evaluation.proofs.faults.sigkill import SETTINGS, saved_weights
from evaluation.proofs.faults.trials import collect, conclude, parser

SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT")
LEFT_AFTER = 5.0  # seconds
LONGER = [*SETTINGS, "args.max_steps=150", "args.save_steps=20"]  # training is a good share of a command's seconds
LONGER.remove("evaluate=false")  # of a stage, and no key of a pipeline
SMALL = [f"++{setting}" for setting in LONGER]
STAGES = [f"++stages.{stage}.{setting}" for stage in ("sft", "dpo") for setting in LONGER if setting[:5] == "args."]
COMMANDS = {
    "pipeline": [
        *("launchers.pipeline", "experiment=smoke", "policies=[dpo]", "reward=gold", "samples.max_prompts=8"),
        *(*SMALL, *STAGES),
    ],
    "sweep": [
        *("launchers.train", "-m", "hydra/launcher=accelerate", "hydra.launcher.jobs=2", "algorithm=sft", "seed=1,2"),
        *SMALL,
    ],
}


def start(kind: str, root: Path) -> subprocess.Popen:
    """A pipeline or a sweep that writes below `root`, with what it prints in `root/<kind>.txt`."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{kind}.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[kind], f"output_root={root}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )


def finished(root: Path) -> dict[str, tuple]:
    """Steps and saved weights of every stage that is recorded as finished, by the name of its folder."""
    folders = sorted(path.parent for path in root.glob("stages/*/stage.json"))
    return {
        path.name: (json.loads((path / "stage.json").read_text()).get("steps"), saved_weights(path)) for path in folders
    }


def left(root: Path, family: list[psutil.Process], parent: int) -> list[str]:
    """Commands of processes that are still there: seen before the signal, naming the folder, or forked for `parent`."""
    warm = {"rlhf_trl_ext.stages.warm", str(parent)}
    words = {process: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    matching = [p for p, command in words.items() if str(root) in " ".join(command) or warm <= {*command}]
    return sorted(filter(None, map(_command, {*matching, *family})))


def _command(process: psutil.Process) -> str:
    """What a process runs; "" for one that has ended."""
    try:
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return " ".join(process.cmdline())[:120] if alive else ""
    except psutil.NoSuchProcess:
        return ""


def undisturbed(kind: str, root: Path) -> tuple[dict, float]:
    """Finished stages of a run without a signal, and its seconds. Raises RuntimeError where it fails."""
    begin = time.monotonic()
    if start(kind, root).wait():
        raise RuntimeError(f"{kind} failed without a signal:\n{(root / f'{kind}.txt').read_text()[-3000:]}")
    return finished(root), time.monotonic() - begin


def trial(kind: str, name: str, root: Path, after: float, twin: dict) -> dict | None:
    """One signal after `after` seconds, and a second start; None if the command had ended by then."""
    shutil.rmtree(root, ignore_errors=True)
    process = start(kind, root)
    try:
        process.wait(after)
        return None
    except subprocess.TimeoutExpired:
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(getattr(signal, name))
    sent = time.monotonic()
    while (process.poll() is None or left(root, family, process.pid)) and time.monotonic() - sent < LEFT_AFTER:
        time.sleep(0.05)
    ended = round(time.monotonic() - sent, 2)
    remaining, recorded = left(root, family, process.pid), finished(root)
    if process.poll() is None:
        process.kill()
        process.wait()
    checkpoints = len(list(root.glob("stages/*/checkpoint-*/complete.json")))
    resumed, _ = undisturbed(kind, root)
    return {
        "command": kind,
        "signal": name,
        "after": round(after, 1),
        "exit": process.returncode,
        "processes": len(family),
        "ended_in": ended,
        "left": remaining,
        "recorded": len(recorded),
        "checkpoints": checkpoints,
        "unreached": [stage for stage, result in recorded.items() if result != twin.get(stage)],
        "equal": resumed == twin,
    }


def main(signals: int = 20, seed: int = 0, output: str = "outputs/signals", kinds=tuple(COMMANDS)) -> dict:
    """Returns `signals`, `left`, `unreached`, `equal` and the trials; writes them to `<output>/signals.json`."""
    rng, folder = random.Random(seed), Path(output).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    for name in (*SIGNALS[:2], SIGNALS[4]):  # a shell lets what it starts in the background ignore some of them
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    twins = {kind: undisturbed(kind, folder / f"{kind}-twin") for kind in kinds}

    def attempt(number: int) -> dict | None:
        kind, name = kinds[number % len(kinds)], SIGNALS[number // len(kinds) % len(SIGNALS)]
        twin, seconds = twins[kind]
        return trial(kind, name, folder / kind, rng.uniform(0, seconds), twin)

    trials = collect(signals, attempt)
    summary = {"signals": signals, "seed": seed, "of_each": dict(Counter(one["signal"] for one in trials))}
    summary |= {"left": sum(bool(one["left"]) for one in trials), "equal": sum(one["equal"] for one in trials)}
    summary |= {"unreached": sum(bool(one["unreached"]) for one in trials)}
    summary["slowest_end"] = max(one["ended_in"] for one in trials)
    return conclude(folder / "signals.json", summary, trials)


if __name__ == "__main__":
    options = parser(__doc__, "--signals", 20, "outputs/signals")
    options.add_argument("--kinds", nargs="+", choices=tuple(COMMANDS), default=tuple(COMMANDS))
    main(**vars(options.parse_args()))
