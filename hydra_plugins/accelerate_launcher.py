"""`hydra/launcher=accelerate`: every job of a sweep is an `accelerate launch` of its own.

    python -m launchers.train -m hydra/launcher=accelerate algorithm=dpo,grpo seed=1,2

Jobs run side by side on GPUs of their own; a failed job does not stop the others; what is finished is not run again.
Hydra finds launchers in modules of this name only. Only what Hydra itself imports may be imported at the top.
"""

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

ERROR = re.compile(r"^(error: |[\w.]*(Error|Exception|Interrupt|Exit|Timeout)\b)")

# What a line of a log may begin with: a rank, or a progress bar that it was written behind.
BEFORE = re.compile(r"^(\[rank\d+\]:|.*\d%\|.*?(it/s|s/it|\?)\])\s*")


def end(process: subprocess.Popen) -> None:
    """Kill a process and all that it started: accelerate gives its workers sessions of their own."""
    import psutil

    started = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


class AccelerateLauncher(Launcher):
    """Runs jobs as processes and keeps, for each, `<hydra.sweep.dir>/<fingerprint>/{job.json, log.txt}`.

    num_processes: of each job, whose `deepspeed=` says how they share the work. jobs: side by side; null: as many as
    have num_processes GPUs of their own, 1 without GPUs. config_file: of accelerate, for all but num_processes.
    timeout: seconds after which a job is ended. metric: by which jobs are ranked, a name in their record
    (`metrics.eval_loss`, `train_seconds`); what an optimising sweeper gets. maximize: whether more is better.
    """

    def __init__(self, num_processes=1, jobs=None, config_file=None, timeout=None, metric=None, maximize=True):
        self.num_processes, self.jobs, self.config_file = num_processes, jobs, config_file
        self.timeout, self.metric, self.maximize = timeout, metric, maximize
        self.running: list[Callable[[], None]] = []  # what ends each job that runs

    def setup(self, *, hydra_context, task_function, config) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from rich.progress import Progress

        if "RANK" in os.environ:
            sys.exit(
                "error: hydra/launcher=accelerate starts accelerate itself: run `python -m launchers.train -m ...`."
            )
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        places = SimpleQueue()
        for place in self._places():
            places.put(place)
        with Progress(transient=True) as progress, ThreadPoolExecutor(places.qsize()) as pool:
            bar = progress.add_task("jobs", total=len(job_overrides))

            def one(overrides):
                place = places.get()
                try:
                    return self._run(list(overrides), place)
                finally:
                    places.put(place)
                    progress.advance(bar)

            signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated; the same command runs what is missing"))
            try:
                jobs = list(pool.map(one, job_overrides))
            except BaseException:  # no further job begins, and those that run end
                pool.shutdown(wait=False, cancel_futures=True)
                for stop in list(self.running):
                    stop()
                raise
        self._show([job for _, job in jobs])
        return [
            self._told(overrides, config, job) for overrides, (config, job) in zip(job_overrides, jobs, strict=True)
        ]

    def _places(self) -> list[str | None]:
        """CUDA_VISIBLE_DEVICES for every job that runs side by side with others; None: nothing is said of GPUs."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            with contextlib.suppress(FileNotFoundError):
                found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
                visible = ",".join(map(str, range(found.count("GPU "))))
        gpus = [gpu for gpu in (visible or "").split(",") if gpu]
        if not gpus:
            return [None] * (self.jobs or 1)
        size = self.num_processes
        sets = [",".join(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]
        if len(sets) < (self.jobs or 1):
            sys.exit(
                f"error: hydra.launcher.jobs={self.jobs or 1} with num_processes={size} needs "
                f"{size * (self.jobs or 1)} GPUs and {len(gpus)} are visible: ask for fewer."
            )
        return sets[: self.jobs]

    def _run(self, overrides: list[str], gpus: str | None) -> tuple[object, dict]:
        from rlhf_trl_ext.stages.identity import digest, versions
        from rlhf_trl_ext.stages.sources import source

        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        # Without output_root, a folder that jobs write to: its contents are no part of what a job is.
        decides = [key for key in config if key not in ("hydra", "output_root")]
        composed = OmegaConf.to_container(OmegaConf.masked_copy(config, decides))
        packages = {name: number for name, number in versions().items() if name != "git_commit"}
        fingerprint = digest([composed, source("rlhf_trl_ext.stages.train"), packages, self._processes()])
        folder = Path(self.config.hydra.sweep.dir) / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "job.json"
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            job = json.loads(known.read_text())
            if job["status"] == "finished":
                return config, {**job, "status": "reused"}
        job = {"overrides": filter_overrides(overrides), "log": str(folder / "log.txt")}
        job |= self._execute([*self._command(), *overrides], gpus, folder)
        (folder / "job.json.partial").write_text(json.dumps(job, indent=2))
        os.replace(folder / "job.json.partial", known)
        return config, job

    def _command(self, main: str | None = None) -> list[str]:
        """accelerate launch of a module; None: of the one that runs now."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        launch = ["accelerate.commands.launch", "--num_processes", str(self.num_processes)]
        launch += ["--num_machines", "1", "--main_process_port", port]
        if self.config_file:
            launch += ["--config_file", self.config_file]
        else:
            launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
            # On CPUs as well: with --cpu, accelerate would start one process.
            launch += ["--multi_gpu"] if self.num_processes > 1 else []
        main = main or sys.modules["__main__"].__spec__.name
        return [sys.executable, "-m", *launch, "-m", main]

    def _execute(self, command: list[str], gpus: str | None, folder: Path) -> dict:
        """Run a job; returns its status, seconds, the last error line, and what it recorded."""
        begin, record = time.time(), folder / "record.json"
        record.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "JOB_RECORD": str(record),
            **({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}),
        }
        try:
            code = self._wait(command, environment, folder)
            error = "" if code == 0 else self._error(code, folder)
        except Exception as told:  # of what runs it: a scheduler that ended the job, say
            code, error = 1, " ".join(f"{type(told).__name__}: {told}".split())[:300]
        found = json.loads(record.read_text()) if record.exists() else {}
        if code == 0 and found.get("world_size", self._processes()) != self._processes():
            error = f"{found['world_size']} process ran and num_processes={self._processes()} were asked for"
        return {
            "status": "failed" if error else "finished",
            "seconds": round(time.time() - begin, 1),
            "error": error,
            "record": found,
        }

    def _wait(self, command: list[str], environment: dict[str, str], folder: Path) -> int | None:
        """Run a command, what it prints going to `folder/log.txt`; returns its exit code, None after `timeout`."""
        with open(folder / "log.txt", "w") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            process = subprocess.Popen(command, env=environment, **streams)
            stop = functools.partial(end, process)
            self.running.append(stop)
            try:
                return process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                return None
            finally:
                self.running.remove(stop)
                stop()

    def _processes(self) -> int:
        """Of a job, on all its machines."""
        return self.num_processes

    def _error(self, code: int | None, folder: Path) -> str:
        if code is None:
            return f"timeout: not finished after {self.timeout} s"
        lines = (folder / "log.txt").read_text(errors="replace").splitlines()
        bare = [BEFORE.sub("", line.strip()) for line in lines]
        told = [line for line in bare if ERROR.match(line)]
        # What accelerate says of a process that failed is not why it did.
        own = [line for line in told if "ChildFailedError" not in line and "CalledProcessError" not in line]
        return (own or told or [line for line in lines if line.strip()] or [""])[-1][:300] or f"exit code {code}"

    def _value(self, job: dict) -> float:
        """The metric of a job; NaN where it failed or recorded none."""
        value = job["record"]
        for part in (self.metric or "").split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) else float("nan")

    def _show(self, jobs: list[dict]) -> None:
        """One table: the best by the metric first, failed ones last with the last line of their error."""
        from rich.console import Console
        from rich.table import Table

        def rank(job):
            value = self._value(job)
            return job["status"] == "failed", value != value, -value if self.maximize else value

        table = Table("job", "status", "seconds", self.metric or "record", "error or log")
        for job in sorted(jobs, key=rank) if self.metric else sorted(jobs, key=lambda job: job["status"] == "failed"):
            shown = f"{self._value(job):.6g}" if self.metric else f"{job['record'].get('steps', '')} steps"
            row = (" ".join(job["overrides"]), job["status"], str(job["seconds"]), shown, job["error"] or job["log"])
            table.add_row(*row)
        console = Console()
        console.width = max(console.width, 140)
        console.print(table)

    def _told(self, overrides: Sequence[str], config, job: dict) -> JobReturn:
        """What Hydra's sweeper is told: optuna's takes NaN for a failed trial, the others raise at the end."""
        optimises = "optuna" in self.config.hydra.sweeper.get("_target_", "")
        told = JobReturn(overrides=list(overrides), cfg=config, status=JobStatus.COMPLETED)
        told.return_value = self._value(job)
        if job["status"] == "failed" and not optimises:
            from rlhf_trl_ext.configuration.checks import ConfigError

            told.status = JobStatus.FAILED
            told.return_value = ConfigError(f"{' '.join(job['overrides'])}: {job['error']} (the others went on)")
        return told
