"""`hydra/launcher=slurm`: every job of a sweep is a Slurm job that runs `accelerate launch` on each of its nodes.

    python -m launchers.train -m hydra/launcher=slurm hydra.launcher.queue.nodes=2 \
        hydra.launcher.queue.gpus_per_node=8 seed=1,2

What is finished is not run again, and the table at the end is the same, as with hydra/launcher=accelerate.
"""

from pathlib import Path

from hydra_plugins.accelerate_launcher import AccelerateLauncher


class SlurmLauncher(AccelerateLauncher):
    """Submits jobs by submitit and waits for them.

    queue: a launcher of hydra-submitit-launcher, for its settings; `submitit_local` runs jobs on this machine.
    num_processes: of a job on each node; null: queue.gpus_per_node. jobs: in the queue at a time. config_file, metric,
    maximize: as of `AccelerateLauncher`.
    """

    def __init__(self, queue, num_processes=None, jobs=32, config_file=None, metric=None, maximize=None):
        super().__init__(num_processes or queue.params["gpus_per_node"] or 1, jobs, config_file, None, metric, maximize)
        self.queue = queue

    def places(self) -> list[None]:
        return [None] * self.jobs

    @property
    def world_size(self) -> int:
        return self.queue.params["nodes"] * self.num_processes

    def execute(self, command: list[str], environment: dict, folder: Path):
        """Submit and wait; the outcome is that of the first node, or what Slurm ended the job by."""
        import hydra_plugins.hydra_submitit_launcher.config as submitit_launcher
        import submitit

        from rlhf_trl_ext.stages.logs import last_error
        from rlhf_trl_ext.stages.processes import Outcome, ProcessesEnded

        cluster, settings = self.queue._EXECUTOR, dict(self.queue.params)
        own = {f"{cluster}_{key}": settings.pop(key) for key in ("max_num_timeout",) if key in settings}
        executor = submitit.AutoExecutor(folder=settings.pop("submitit_folder"), cluster=cluster, **own)
        plain = submitit_launcher.BaseQueueConf.__dataclass_fields__
        executor.update_parameters(**{key if key in plain else f"{cluster}_{key}": v for key, v in settings.items()})
        job = executor.submit(on_node, command, self.num_processes, environment, str(folder))
        while not job.done():
            if self.processes.ended.wait(1.0):
                job.cancel()
                raise ProcessesEnded
        try:
            code = job.results()[0]
        except Exception as error:  # of what runs it: a scheduler that ended the job, say
            return Outcome(1, " ".join(f"{type(error).__name__}: {error}".split())[:300])
        return Outcome(code, last_error(folder / "log.txt", code) if code else "")


def on_node(command: list[str], num_processes: int, environment: dict[str, str], folder: str) -> int:
    """Runs on every node of a Slurm job: its share of an `accelerate launch`; returns the exit code.

    command: of one node, as `AccelerateLauncher` makes it. What is printed goes to `<folder>/log.txt`, of further nodes
    to `log-<node>.txt`.
    """
    import submitit

    from rlhf_trl_ext.stages.processes import Processes

    place = submitit.JobEnvironment()
    if place.num_nodes > 1:
        places = {"--num_machines": place.num_nodes, "--num_processes": place.num_nodes * num_processes}
        # The same port on all nodes, and another for another job.
        places |= {"--main_process_port": 20_000 + int(place.job_id.split("_")[0]) % 20_000}
        for option, value in places.items():
            command[command.index(option) + 1] = str(value)
        more = ["--machine_rank", str(place.node), "--main_process_ip", place.hostnames[0], "--multi_gpu"]
        at = command.index("--num_processes")
        command = [*command[:at], *(option for option in more if option not in command), *command[at:]]
    name = f"log-{place.node}.txt" if place.node else "log.txt"
    log = Path(folder) / name
    log.unlink(missing_ok=True)
    return Processes().run(command, log, environment).code
