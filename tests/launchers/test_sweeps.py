"""Sweeps of real training: jobs that fail, several machines, Slurm by way of submitit's executor for one machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_lines import in_process
from conftest import ROOT

from rlhf_trl_ext.stages.checkpoints import last_step

pytestmark = pytest.mark.slow
SMALL = ["++model.build.hidden_size=32", "++model.build.layers=1", "++model.build.heads=2"]


@pytest.fixture
def sweep(tmp_path, few):
    """`sweep(*overrides, **environment)`: what a sweep over algorithm=sft printed, its exit code and its jobs."""

    def run(*overrides, **environment):
        searched = {override.split("=")[0] for override in overrides}
        fixed = [setting for setting in few if setting.split("=")[0].lstrip("+") not in searched]
        command = [sys.executable, "-m", "launchers.train", "-m", *SMALL, *fixed, f"output_root={tmp_path}", *overrides]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "160", **environment}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        jobs = [json.loads(path.read_text()) for path in tmp_path.glob("multirun/*/job.json")]
        return done.stdout + done.stderr, done.returncode, jobs

    return run


def test_four_jobs_on_two_workers_with_a_crash_a_hang_and_no_memory(sweep, tmp_path):
    overrides = ["hydra/launcher=accelerate", "hydra.launcher.jobs=2", "hydra.launcher.metric=train_seconds"]
    overrides += ["++callbacks.fault._target_=faults.Fault", "++callbacks.fault.seed=${seed}", "trust=[faults]"]
    overrides += ["step_timeout=60"]
    printed, code, jobs = sweep(*overrides, "seed=0,3,6,9")
    assert code == 1 and printed.count(" finished ") == 1 and len(jobs) == 4
    errors = [job["error"] for job in jobs if job["status"] == "failed"]
    assert len(errors) == 3
    told = " ".join(errors)
    for words in (
        "RuntimeError: a planted crash",
        "Timeout (0:01:00)!",
        "can't allocate memory: you tried to allocate",
    ):
        assert words in told
    assert all(word in printed for word in ("planted", "Timeout", "allocate"))
    assert all(job["record"]["steps"] == 4 for job in jobs if job["status"] == "finished")
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not left
    first = {job["log"]: os.path.getmtime(job["log"]) for job in jobs if job["status"] == "finished"}

    printed, code, jobs = sweep(*overrides, "seed=0,3", FAULTS_MENDED="1")
    assert code == 0 and printed.count(" reused ") == 1 and printed.count(" finished ") == 1
    assert all(os.path.getmtime(log) == written for log, written in first.items())
    assert sorted(job["status"] for job in jobs) == ["failed", "failed", "finished", "finished"]


def test_a_hanging_job_of_two_processes_ends_with_all_its_processes(sweep, tmp_path):
    overrides = ["hydra/launcher=accelerate", "hydra.launcher.num_processes=2", "hydra.launcher.timeout=60"]
    overrides += [
        "seed=6",
        "++callbacks.fault._target_=faults.Fault",
        "++callbacks.fault.seed=${seed}",
        "trust=[faults]",
    ]
    _, code, (job,) = sweep(*overrides)
    assert code == 1 and job["error"] == "timeout: not finished after 60 s"
    assert "loss" in Path(job["log"]).read_text()  # it had begun
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not left


def test_optuna_searches_with_the_launcher(sweep, tmp_path):
    overrides = ["hydra/launcher=accelerate", "hydra.launcher.metric=metrics.eval_loss", "evaluate=true"]
    overrides += ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    overrides += ["hydra.launcher.maximize=false", "hydra.sweeper.direction=minimize"]
    printed, code, jobs = sweep(*overrides, "args.learning_rate=tag(log, interval(1e-5, 1e-2))")
    assert code == 0, printed
    losses = [job["record"]["metrics"]["eval_loss"] for job in jobs]
    assert len(set(losses)) == 2
    found = (tmp_path / "multirun" / "optimization_results.yaml").read_text()
    assert f"best_value: {min(losses)}" in found


def test_slurm_jobs_run_by_submitit(sweep):
    overrides = [
        "hydra/launcher=slurm",
        "hydra/launcher@hydra.launcher.queue=submitit_local",
        "hydra.launcher.num_processes=2",
    ]
    printed, code, (job,) = sweep(*overrides, "seed=1")
    assert code == 0, printed
    assert job["status"] == "finished" and job["record"]["world_size"] == 2


def test_two_nodes_train_together(few, tmp_path):
    """What submitit runs on each of two nodes, both on this machine: the environment is that of Slurm."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job = free.getsockname()[1] - 20_000  # whose number gives the port
    run = """
import sys
from hydra_plugins.slurm_launcher import on_node
from rlhf_trl_ext.stages.processes import accelerate_launch
launch = accelerate_launch("launchers.train", 1)
sys.exit(on_node([*launch, *sys.argv[2:]], 1, {"JOB_RECORD": sys.argv[1] + "/record.json"}, sys.argv[1]))
"""
    settings = [str(tmp_path), "algorithm=sft", *SMALL, *few, f"output_root={tmp_path}"]
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "2"}
    slurm |= {"SLURM_NTASKS": "2", "SUBMITIT_EXECUTOR": "slurm", "PYTHONPATH": str(ROOT)}
    nodes = []
    for node in "01":
        place = {"SLURM_NODEID": node, "SLURM_PROCID": node, "SLURM_LOCALID": "0"}
        command = [sys.executable, "-c", run, *settings]
        nodes.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **slurm, **place}))
    assert [node.wait(600) for node in nodes] == [0, 0], (tmp_path / "log.txt").read_text()[-3000:]
    assert json.loads((tmp_path / "record.json").read_text())["world_size"] == 2
    assert (tmp_path / "log-1.txt").exists()


def test_a_preempted_job_of_two_processes_saves_in_the_middle_and_goes_on(few, tmp_path):
    longer = ["++args.max_steps=400", "++args.save_steps=50", "hydra.launcher.num_processes=2"]
    fixed = [setting for setting in few if "max_steps" not in setting]
    command = [sys.executable, "-m", "launchers.train", "-m", "hydra/launcher=accelerate", *longer, "algorithm=sft"]
    process = subprocess.Popen(
        [*command, *SMALL, *fixed, f"output_root={tmp_path}"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("stages/*/checkpoint-50/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4  # guard, accelerate, two workers
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    _, left = psutil.wait_procs(family, timeout=5)
    assert not left and not list(tmp_path.glob("stages/*/stage.json"))
    (folder,) = tmp_path.glob("stages/*")
    step = last_step(folder)
    assert step >= 50 and step % 50  # no step at which a checkpoint was due
    (log,) = tmp_path.glob("multirun/*/log.txt")
    assert f"SIGTERM: saved at step {step} of 400" in log.read_text()


def test_a_sweep_in_one_process_ends_with_a_table_of_folders(few, tmp_path):
    done = in_process("launchers.train", "-m", *SMALL, *few, "seed=0,1", "shown_rows=0", f"output_root={tmp_path}")
    printed, code = done.stdout, done.returncode
    folders = sorted(str(path.parent) for path in tmp_path.glob("stages/*/stage.json"))
    assert code == 0 and len(folders) == 2
    table = printed[printed.rindex("job") :]
    assert "seed=0" in table and "seed=1" in table and "max_steps" not in table
