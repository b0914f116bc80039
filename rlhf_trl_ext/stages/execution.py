"""Stages of one pipeline or of many, each in a process of its own, side by side where they are independent.

A stage is `python -m rlhf_trl_ext.stages <folder>`, which anyone can repeat by hand; what it prints is in the stage's
log.txt.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from rlhf_trl_ext.configuration import trust
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.checkpoints import last_step
from rlhf_trl_ext.stages.display import Display
from rlhf_trl_ext.stages.processes import Processes
from rlhf_trl_ext.stages.stage import Stage, exclusive

MODULE = "rlhf_trl_ext.stages"
# What stages import; without a GPU only, as CUDA must not be begun before a fork.
HEAVY = (
    "transformers.trainer",
    "peft",
    "trl.trainer.dpo_trainer",
    "trl.trainer.reward_trainer",
    "trl.trainer.grpo_trainer",
    "hydra.utils",
    "scipy.stats",
)
PARALLEL = ("TOKENIZERS_PARALLELISM", "false")
Key = tuple[str, str]  # names of a pipeline and of one of its stages


class StageFailed(ConfigError):
    """A stage's process ended with an error; the message holds the end of its log, and in its last line the reason."""


class Execution:
    """Runs, resumes or reuses every stage of some pipelines; what needs a failed stage is not begun.

    pipelines: name -> pipeline; what a stage recorded is put into its pipeline's `records`.
    places: where stages run side by side, one at a time in each: CUDA_VISIBLE_DEVICES of its process, or None.
    keep_going: whether stages that need no failed one go on; else those under way are finished and nothing is begun.
    command: module -> how a training stage is started, where that is not one process of this Python.
    """

    def __init__(
        self,
        pipelines: dict,
        places: Sequence[str | None] = (None,),
        keep_going: bool = False,
        command: Callable[[str], list[str]] | None = None,
    ):
        self.pipelines, self.keep_going = pipelines, keep_going
        self.command = command or (lambda module: [sys.executable, "-m", module])
        forks = sys.platform == "linux" and not torch.cuda.is_available()
        self.processes = Processes(places, modules=HEAVY if forks else ())
        self.failures: dict[Key, str] = {}

    def run(self) -> dict[Key, str]:
        """All stages in the order of their needs; returns the reasons of those that failed, by pipeline and stage."""
        waiting = {
            (pipeline, name): config
            for pipeline in self.pipelines
            for name, config in self.pipelines[pipeline].configs.items()
        }
        running: dict[Future, Key] = {}
        self.display = Display([_label(key) for key in waiting])
        with self.display, ThreadPoolExecutor(self.processes.count) as pool, self.processes:
            while waiting or running:
                self._give_up(waiting)
                for key in [key for key in waiting if self._ready(*key)][: self.processes.count - len(running)]:
                    stage = self.pipelines[key[0]].stage(key[1])
                    del waiting[key]
                    running[pool.submit(self._run, key, stage)] = key
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._done(future, running.pop(future))
        for pipeline in self.pipelines.values():  # in their own order, not in that in which they ended
            order = [*(name for name in pipeline.records if name not in pipeline.configs), *pipeline.configs]
            pipeline.records = {name: pipeline.records[name] for name in order if name in pipeline.records}
        if waiting and not self.failures:
            names = ", ".join(name for _, name in waiting)
            raise ConfigError(f"stages {names} need each other: change their `needs`.")
        return self.failures

    def _ready(self, pipeline: str, name: str) -> bool:
        done = self.pipelines[pipeline].records
        begins = self.keep_going or not self.failures
        return begins and all(need in done for need in self.pipelines[pipeline].configs[name].needs if need)

    def _give_up(self, waiting: dict[Key, object]) -> None:
        """Of stages that keep going, take out those that need a failed one, and those that need these."""
        lost = True
        while lost and self.keep_going:
            lost = False
            for pipeline, name in list(waiting):
                if failed := [
                    need for need in self.pipelines[pipeline].configs[name].needs if (pipeline, need) in self.failures
                ]:
                    self.failures[pipeline, name] = f"needs {failed[0]}, which failed"
                    del waiting[pipeline, name]
                    lost = True

    def _done(self, future: Future, key: Key) -> None:
        pipeline, name = key
        try:
            self.pipelines[pipeline].records[name], how = future.result()
        except ConfigError as error:
            self.failures[key] = str(error)
            how = "FAILED"
        self.display.end(_label(key), how, self.pipelines[pipeline].folders[name])

    def _run(self, key: Key, stage: Stage) -> tuple[dict, str]:
        pipeline = self.pipelines[key[0]]
        pipeline.folders[key[1]] = stage.folder
        if stage.result:
            return stage.result, "reused"
        begin = time.time()
        with exclusive(stage.folder, wait=False) if stage.overwrites else contextlib.nullcontext():
            stage.begin()
        if step := last_step(stage.folder):
            self.display.line(_label(key), f"goes on from step {step}")
        self.display.begin(_label(key), stage.folder)
        log = stage.folder / "log.txt"
        command = self._command(pipeline.launcher(key[1]), stage)
        outcome = self.processes.run(command, log, self._environment())
        if not outcome.code and Stage(stage.config, stage.processes).fingerprint != stage.fingerprint:
            raise StageFailed(
                f"stage {stage.name}: the project's code changed while it ran; run the same command again."
            )
        if outcome.code or stage.result is None:
            tail = "\n".join(line for line in log.read_text(errors="replace").splitlines()[-12:] if line.strip())
            reason = outcome.error.removeprefix("error: ") or "it recorded no result"
            raise StageFailed(f"the end of {log}:\n{tail}\nstage {stage.name} failed (exit {outcome.code}): {reason}")
        return stage.result, f"{time.time() - begin:.0f} s"

    def _command(self, launcher: str, stage: Stage) -> list[str]:
        start = self.command(MODULE) if launcher == "train" else [sys.executable, "-m", MODULE]
        return [*start, str(stage.folder), *trust.arguments(stage.config)]

    def _environment(self) -> dict[str, str]:
        """Threads shared between the stages that run side by side, unless the caller decided."""
        threads = str(max(1, (os.cpu_count() or 1) // self.processes.count))
        return {name: os.environ.get(name, value) for name, value in (("OMP_NUM_THREADS", threads), PARALLEL)}


def _label(key: Key) -> str:
    """What a stage is called in the terminal: pipelines without a name have one alone."""
    return " ".join(filter(None, key))
