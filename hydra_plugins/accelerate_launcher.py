"""`hydra/launcher=accelerate`: every job of a sweep is an `accelerate launch` of its own.

    python -m launchers.train -m hydra/launcher=accelerate algorithm=dpo,grpo seed=1,2

Jobs run side by side on GPUs of their own; a failed job does not stop the others; what is finished is not run again.
Hydra finds launchers in modules of this name only. Only what Hydra itself imports may be imported at the top.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf


class AccelerateLauncher(Launcher):
    """Runs jobs as processes and keeps, for each, `<hydra.sweep.dir>/<fingerprint>/{job.json, log.txt}`.

    num_processes: of each job, whose `deepspeed=` says how they share the work. jobs: side by side; null: as many as
    have num_processes GPUs of their own, 1 without GPUs. config_file: of accelerate, for all but num_processes.
    timeout: seconds after which a job is ended. metric, maximize: by which jobs are ranked, `sweep.metric` and
    `sweep.maximize`; what an optimising sweeper gets. A pipeline is one process, which starts those of its stages.
    """

    def __init__(self, num_processes=1, jobs=None, config_file=None, timeout=None, metric=None, maximize=None):
        self.num_processes, self.jobs, self.config_file = num_processes, jobs, config_file
        self.timeout, self.metric, self.maximize = timeout, metric, maximize

    def setup(self, *, hydra_context, task_function, config) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from rich.progress import Progress

        from rlhf_trl_ext.stages.processes import Processes

        if "RANK" in os.environ:
            sys.exit(
                "error: hydra/launcher=accelerate starts accelerate itself: run `python -m launchers.train -m ...`."
            )
        for name, value in (("num_processes", self.num_processes), ("jobs", self.jobs)):
            if value is not None and (type(value) is not int or value < 1):
                sys.exit(f"error: hydra.launcher.{name}={value}: at least 1 is needed.")
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        self.processes = Processes(self.places())
        with Progress(transient=True) as progress:
            bar = progress.add_task("jobs", total=len(job_overrides))

            def one(overrides):
                job = self._run(list(overrides))
                progress.advance(bar)
                return job

            jobs = self.processes.map(one, job_overrides)
        self._show([job for _, job in jobs])
        return [
            self._job_return(overrides, config, job)
            for overrides, (config, job) in zip(job_overrides, jobs, strict=True)
        ]

    def places(self) -> list[str | None]:
        """Where jobs run side by side, see `gpu_places`."""
        from rlhf_trl_ext.configuration.checks import ConfigError
        from rlhf_trl_ext.stages.processes import gpu_places

        try:
            return gpu_places(self.num_processes, self.jobs)
        except ConfigError as error:
            sys.exit(f"error: hydra.launcher.{error}")

    @property
    def world_size(self) -> int:
        """Processes of a job, on all its machines."""
        return self.num_processes

    def _run(self, overrides: list[str]) -> tuple[object, dict]:
        from rlhf_trl_ext.files import write
        from rlhf_trl_ext.stages.identity import digest, versions
        from rlhf_trl_ext.stages.sources import source

        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        # Without output_root, a folder that jobs write to: its contents are no part of what a job is.
        decides = [key for key in config if key not in ("hydra", "output_root", "sweep")]
        composed = OmegaConf.to_container(OmegaConf.masked_copy(config, decides))
        packages = {name: number for name, number in versions().items() if name != "git_commit"}
        fingerprint = digest([composed, source("rlhf_trl_ext.stages.train"), packages, self.world_size])
        folder = Path(self.config.hydra.sweep.dir) / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        if known := finished_job(folder):
            return config, {**known, "status": "reused"}
        module = sys.modules["__main__"].__spec__.name
        command = [*self._start(module), *self._config_dir(), *overrides]
        job = {"overrides": filter_overrides(overrides), "log": str(folder / "log.txt")}
        job |= self._execute(command, folder)
        write(folder / "job.json", json.dumps(job, indent=2))
        return config, job

    def _start(self, module: str) -> list[str]:
        """How a job is started: a pipeline as it is, anything else by accelerate."""
        from rlhf_trl_ext.stages.processes import accelerate_launch

        if module != "launchers.pipeline":
            return accelerate_launch(module, self.num_processes, self.config_file)
        if self.num_processes > 1:
            sys.exit(f"error: hydra.launcher.num_processes={self.num_processes}: a pipeline is one process; give 1.")
        return [sys.executable, "-m", module]

    def _config_dir(self) -> list[str]:
        """`--config-dir` as the sweep was given it."""
        sources = self.config.hydra.runtime.config_sources
        return [word for s in sources if s.provider == "command-line" for word in ("--config-dir", s.path)]

    def _execute(self, command: list[str], folder: Path) -> dict:
        """Run a job; returns its status, seconds, the last error line, and what it recorded."""
        from rlhf_trl_ext.files import read_mark

        begin, record = time.time(), folder / "record.json"
        record.unlink(missing_ok=True)
        error = self.execute(command, {"JOB_RECORD": str(record)}, folder).error
        mark = read_mark(record) or {}
        if not error and mark.get("world_size", self.world_size) != self.world_size:
            error = f"{self.world_size} processes requested (num_processes), {mark['world_size']} running"
        return {
            "status": "failed" if error else "finished",
            "seconds": round(time.time() - begin, 1),
            "error": error,
            "record": mark,
        }

    def execute(self, command: list[str], environment: dict[str, str], folder: Path):
        """Run the command of a job, what it prints going to `folder/log.txt`; returns its `Outcome`."""
        return self.processes.run(command, folder / "log.txt", environment, self.timeout)

    def _value(self, job: dict) -> float:
        """The metric of a job; NaN where it failed or recorded none."""
        from rlhf_trl_ext.stages.sweep import best

        return best(job["record"], self.metric, self.maximize)[0]

    def _show(self, jobs: list[dict]) -> None:
        """One table: the best by the metric first, failed ones last with the last line of their error."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        from rlhf_trl_ext.stages.sweep import best, differences, more_is_better

        most = more_is_better(self.metric, self.maximize)

        def rank(labelled):
            value = self._value(labelled[1]) if self.metric else 0.0
            return labelled[1]["status"] == "failed", value != value, -value if most else value

        table = Table("job", "status", "seconds", self.metric or "record", "error or log")
        labels = differences([job["overrides"] for job in jobs])
        for label, job in sorted(zip(labels, jobs, strict=True), key=rank):
            text = f"{job['record'].get('steps', '')} steps"
            if self.metric:
                value, policy = best(job["record"], self.metric, self.maximize)
                text = f"{value:.6g}{f' ({policy})' if policy else ''}"
            cells = (label, job["status"], str(job["seconds"]), text, job["error"] or job["log"])
            table.add_row(*map(escape, cells))
        console = Console()
        console.width = max(console.width, 140)
        console.print(table)

    def _job_return(self, overrides: Sequence[str], config, job: dict) -> JobReturn:
        """The result for Hydra's sweeper: optuna's takes NaN for a failed trial, the others raise at the end."""
        optimises = "optuna" in self.config.hydra.sweeper.get("_target_", "")
        result = JobReturn(overrides=list(overrides), cfg=config, status=JobStatus.COMPLETED)
        result.return_value = self._value(job)
        if job["status"] == "failed" and not optimises:
            from rlhf_trl_ext.configuration.checks import ConfigError

            result.status = JobStatus.FAILED
            result.return_value = ConfigError(f"{' '.join(job['overrides'])}: {job['error']} (the others went on)")
        return result


def finished_job(folder: Path) -> dict | None:
    """What a sweep recorded of a finished job whose stage is still there; None where it has to run (again)."""
    from rlhf_trl_ext.files import read_mark

    job = read_mark(folder / "job.json", ("status", "seconds", "error", "record", "overrides", "log"))
    if job is None or job["status"] != "finished" or not isinstance(job["record"], dict):
        return None
    if "folder" in job["record"]:  # of a stage
        stage = read_mark(Path(str(job["record"]["folder"]), "stage.json"), ("fingerprint",))
        if stage is None or stage["fingerprint"] != job["record"].get("fingerprint"):
            return None
    return job
