"""Kills training at random moments and resumes it: `python -m evaluation.proofs.faults.sigkill --kills 50` (minutes).

Every run ends at a SIGKILL, drawn uniformly over the processor time of its uninterrupted twin (a busy machine does not
stretch it), and is started again by the same call. Then its logged metrics and saved weights must be the twin's, bit
for bit, and no checkpoint that was whole before may be lost. Model and data are made from code; steps, saves and logs
are out of step with each other on purpose.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import psutil

from evaluation.proofs.faults.trials import collect, conclude, parser

SAVE_STEPS = 3
SETTINGS = [
    *("model.build.hidden_size=32", "model.build.layers=1", "model.build.heads=2", "evaluate=false"),
    *(f"dataset.{view}=48" for view in ("demonstrations", "preferences", "prompts", "evaluation")),
    *("args.max_steps=24", f"args.save_steps={SAVE_STEPS}", "args.logging_steps=2", "args.learning_rate=1e-3"),
    *("args.per_device_train_batch_size=8", "args.disable_tqdm=true"),
]
ONLINE = [
    "reward.path=null",
    "trainer.reward_funcs=[{_target_: hydra.utils.get_method, path: evaluation.proofs.faults.sigkill.characters}]",
    *("args.num_generations=4", "args.max_completion_length=8", "args.steps_per_generation=2", "args.num_iterations=2"),
]
TIMED = ("seconds", "runtime", "per_second", "step_time")


def characters(completions, **kwargs) -> list[float]:
    """A reward that differs between the completions of an untrained model: the characters that it uses."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def configuration(algorithm: str, folder: Path):
    """The run of an algorithm, as `launchers.train` would get it."""
    from rlhf_trl_ext.configuration.composing import compose_config

    overrides = [f"algorithm={algorithm}", f"output_dir={folder}", f"output_root={folder.parent}"]
    online = compose_config(f"algorithm/{algorithm}").view == "prompts"
    return compose_config("train", [*overrides, *(f"++{setting}" for setting in SETTINGS + ONLINE * online)])


def algorithms() -> list[str]:
    """One of `conf/algorithm` for every trainer, without those that need a probability beside every pair."""
    from hydra.utils import get_class

    from rlhf_trl_ext.configuration.composing import compose_config
    from rlhf_trl_ext.configuration.folders import CONF
    from rlhf_trl_ext.trainers.parts.soft_labels import SoftLabels

    names = sorted(path.stem for path in (CONF / "algorithm").glob("[!_]*.yaml"))
    trainers = {compose_config(f"algorithm/{name}").trainer._target_: name for name in reversed(names)}
    return sorted(name for trainer, name in trainers.items() if not issubclass(get_class(trainer), SoftLabels))


def preload(names: list[str]) -> None:
    """Import once what every process needs: they are forked, and start in a second."""
    import deepspeed  # noqa: F401
    from hydra.utils import get_class

    import rlhf_trl_ext.stages.train  # noqa: F401

    for algorithm in names:
        get_class(configuration(algorithm, Path("unused")).trainer._target_)


def run(config, log: Path, kill_after: float | None = None) -> tuple[float, bool]:
    """Train in a process of its own; returns its processor seconds and whether it was killed after `kill_after`.

    Raises RuntimeError if training fails.
    """
    child = os.fork()
    if child == 0:
        _train_and_exit(config, log)
    process, ended = psutil.Process(child), 0
    while not ended:
        spent = process.cpu_times()
        if kill_after is not None and spent.user + spent.system >= kill_after:
            time.sleep(random.random() * 0.01)  # the kernel counts in hundredths of a second
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
        ended, status, used = os.wait4(child, os.WNOHANG)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if status and not killed:
        raise RuntimeError(f"training {config.name} failed; the end of {log}:\n{log.read_text()[-3000:]}")
    return used.ru_utime + used.ru_stime, killed


def _train_and_exit(config, log: Path) -> None:
    from rlhf_trl_ext.stages.train import train

    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        train(config)
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def result(folder: Path) -> tuple[list[dict], dict[str, bytes]]:
    """Logged metrics without times, and the files of saved weights."""
    from rlhf_trl_ext.callbacks.records import read_metrics

    rows = [{k: v for k, v in row.items() if not any(t in k for t in TIMED)} for row in read_metrics(folder)]
    return rows, saved_weights(folder.parent)


def saved_weights(folder: Path) -> dict[str, bytes]:
    """Files of saved weights below a stage's folder by relative name, checkpoints left out."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*.safetensors")}
    return {name: p.read_bytes() for name, p in files.items() if not name.startswith(("checkpoint-", "broken-"))}


def state_after_kill(folder: Path) -> tuple[int, str, bool]:
    """After a kill: the step of the newest whole checkpoint, when the kill came, and whether a checkpoint is lost."""
    from rlhf_trl_ext.callbacks.records import read_metrics
    from rlhf_trl_ext.stages.checkpoints import damage

    steps = {path: int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")}
    whole = max((step for path, step in steps.items() if not damage(path)), default=0)
    metrics = folder / "metrics.jsonl"
    logged = max((row["step"] for row in read_metrics(metrics)), default=0) if metrics.exists() else 0
    saving = max(steps.values(), default=0) > whole
    moment = "in a save" if saving else "in training" if whole else "before a checkpoint"
    # The last step that was logged came after the save of every earlier one.
    return whole, moment, whole < (logged - 1) // SAVE_STEPS * SAVE_STEPS


def trial(algorithm: str, folder: Path, twin: tuple, seconds: float) -> dict | None:
    """Kill after `seconds` of processor time, resume, compare; None if the run had ended by then."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config, log = configuration(algorithm, folder), folder / "log.txt"
    if not run(config, log, seconds)[1]:
        return None
    step, moment, lost = state_after_kill(folder)
    run(config, log)
    rows, weights = result(folder / "metrics.jsonl")
    equal = {"equal_metrics": rows == twin[0], "equal_weights": weights == twin[1]}
    return {"algorithm": algorithm, "seconds": round(seconds, 3), "from": step, "kill": moment, "lost": lost, **equal}


def main(kills: int, seed: int, names: list[str] | None, output: str) -> dict:
    """Kill and resume the algorithms in turn; names: of algorithms, None for one of every trainer.

    Returns `kills`, `equal`, `lost` and `moments`. Raises RuntimeError where a resumed run fails.
    """
    names = names or algorithms()
    preload(names)
    rng, folder, twins = random.Random(seed), Path(output).resolve(), {}

    def attempt(number: int) -> dict | None:
        algorithm = names[number % len(names)]
        if algorithm not in twins:
            twin = folder / f"{algorithm}-twin"
            shutil.rmtree(twin, ignore_errors=True)
            twin.mkdir(parents=True)
            seconds, _ = run(configuration(algorithm, twin), twin / "log.txt")
            twins[algorithm] = (*result(twin / "metrics.jsonl"), seconds)
        return trial(algorithm, folder / algorithm, twins[algorithm], rng.uniform(0, twins[algorithm][2]))

    trials = collect(kills, attempt)
    summary = {"kills": kills, "seed": seed, "equal": sum(t["equal_metrics"] and t["equal_weights"] for t in trials)}
    summary |= {"lost": sum(t["lost"] for t in trials), "moments": dict(Counter(t["kill"] for t in trials))}
    return conclude(folder / "sigkill.json", summary, trials)


if __name__ == "__main__":
    options = parser(__doc__, "--kills", 50, "outputs/faults")
    options.add_argument("--algorithms", nargs="+", dest="names", help="of conf/algorithm")
    main(**vars(options.parse_args()))
