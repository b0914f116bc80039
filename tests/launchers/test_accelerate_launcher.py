"""Sweeps by `hydra/launcher=accelerate`, with a stand-in for accelerate that only runs the module it is given."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT
from runs_on_disk import DAMAGED

from hydra_plugins.accelerate_launcher import finished_job
from rlhf_trl_ext.stages.logs import last_error
from rlhf_trl_ext.stages.processes import Outcome, Processes, accelerate_launch, gpu_places

STAND_IN = """
import runpy, sys
sys.argv = sys.argv[sys.argv.index("-m") + 1 :]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
CONFIG = """
kind: good
seed: 0
hydra: {sweep: {dir: sweep, subdir: .}, output_subdir: null, run: {dir: .}, searchpath: [file://CONF]}
"""
JOB = """
import hydra, json, os, sys, time

@hydra.main(version_base="1.3", config_path="conf", config_name="job")
def main(config):
    with open("runs.txt", "a") as file:
        file.write(f"{config.kind}{config.seed} ")
    if config.kind == "crash":
        raise RuntimeError("the job broke")
    if config.kind == "hang":
        time.sleep(100)
    if config.kind == "memory":
        raise MemoryError("out of memory")
    record = {"world_size": 1, "steps": 3, "metrics": {"gold": config.seed / 4}}
    open(os.environ["JOB_RECORD"], "w").write(json.dumps(record))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def sweep(tmp_path):
    """`sweep(*overrides)`: what the sweep printed, and its exit code."""
    stand_in = tmp_path / "stand_in" / "accelerate" / "commands"
    stand_in.mkdir(parents=True)
    for file, text in {stand_in.parent / "__init__.py": "", stand_in / "__init__.py": ""}.items():
        file.write_text(text)
    (stand_in / "launch.py").write_text(STAND_IN)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "job.yaml").write_text(CONFIG.replace("CONF", str(ROOT / "conf")))
    (tmp_path / "job.py").write_text(JOB)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'stand_in'}:{ROOT}", "COLUMNS": "160"}
    environment.pop("RANK", None)

    def run(*overrides, **more):
        command = [sys.executable, "-m", "job", "-m", "hydra/launcher=accelerate", *overrides]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr, done.returncode

    return run


def runs(tmp_path) -> list[str]:
    return sorted((tmp_path / "runs.txt").read_text().split())


@pytest.mark.parametrize("content", [*DAMAGED, b'{"status": NaN}', b'{"status": "finished", "record": []}'])
def test_a_job_whose_record_is_damaged_runs_again(content, tmp_path):
    job = {"status": "finished", "seconds": 1, "error": "", "record": {}, "overrides": [], "log": "log.txt"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert finished_job(tmp_path) == job
    (tmp_path / "job.json").write_bytes(content)
    assert finished_job(tmp_path) is None


def test_a_job_whose_stage_is_gone_or_another_runs_again(tmp_path):
    record = {"folder": str(tmp_path / "sft"), "fingerprint": "a"}
    job = {"status": "finished", "seconds": 1, "error": "", "record": record, "overrides": [], "log": "log.txt"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert finished_job(tmp_path) is None
    (tmp_path / "sft").mkdir()
    for fingerprint in ("b", "a"):
        (tmp_path / "sft" / "stage.json").write_text(json.dumps({"fingerprint": fingerprint}))
        assert (finished_job(tmp_path) is None) == (fingerprint == "b")


@pytest.mark.slow  # waits for a timeout
def test_failed_jobs_do_not_stop_the_others_and_finished_ones_are_not_repeated(sweep, tmp_path):
    settings = ["hydra.launcher.jobs=2", "hydra.launcher.timeout=6", "hydra.launcher.metric=metrics.gold"]
    printed, code = sweep("kind=good,crash,hang,memory", "seed=1,2", *settings)
    assert code == 1
    told = [line for line in printed.splitlines() if "kind=" in line and "│" in line]
    assert "kind=good seed=2" in told[0] and "0.5" in told[0] and "finished" in told[0]  # the best by the metric
    assert "kind=good seed=1" in told[1] and "0.25" in told[1]
    for words in ("the job broke", "not finished after 6 s", "out of memory"):
        assert sum(words in line for line in told[2:]) == 2, words
    once = runs(tmp_path)
    assert len(once) == 8
    (tmp_path / "runs.txt").unlink()
    printed, code = sweep("kind=good,crash", "seed=1,2,3", *settings)
    assert runs(tmp_path) == ["crash1", "crash2", "crash3", "good3"]  # what failed, and what is new
    assert code == 1 and printed.count("reused") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("signals_end_processes")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_sweep_leaves_no_job_behind(sweep, tmp_path, how):
    command = [sys.executable, "-m", "job", "-m", "hydra/launcher=accelerate", "kind=hang", "seed=1,2"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'stand_in'}:{ROOT}"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not (tmp_path / "runs.txt").exists() or runs(tmp_path) != ["hang1"]:
        time.sleep(0.05)
    jobs = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    code = process.wait(60)
    assert code == (143 if how == signal.SIGTERM else -how)  # this stand-in for a launcher lets Python end itself
    _, left = psutil.wait_procs(jobs, timeout=5)
    assert len(jobs) >= 2 and not left and runs(tmp_path) == ["hang1"]


def test_jobs_find_the_config_folder_of_the_sweep(sweep, tmp_path):
    (tmp_path / "own" / "extra").mkdir(parents=True)
    (tmp_path / "own" / "extra" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    printed, code = sweep("+extra=mine", "--config-dir", "own")
    assert code == 0 and runs(tmp_path) == ["good3"], printed


def test_one_process_where_more_were_asked_for_is_a_failure(sweep, tmp_path):
    printed, code = sweep("seed=1", "hydra.launcher.num_processes=2")
    assert code == 1 and "2 processes requested (num_processes), 1 running" in printed


def test_refusals(sweep):
    printed, code = sweep("seed=1", RANK="0")
    assert code == 1 and "hydra/launcher=accelerate starts accelerate itself" in printed
    printed, code = sweep("seed=1", "hydra.launcher.num_processes=4", CUDA_VISIBLE_DEVICES="0,1")
    assert code == 1 and "num_processes=4 needs 4 GPUs and 2 are visible" in printed


def test_jobs_get_gpus_of_their_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5,7")
    assert gpu_places(num_processes=2) == ["0,1", "2,5"]
    assert gpu_places(num_processes=2, jobs=1) == ["0,1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_places(num_processes=2, jobs=3) == [None] * 3
    command = accelerate_launch("launchers.train", num_processes=2)
    assert command[-2:] == ["-m", "launchers.train"] and "--multi_gpu" in command
    assert "--multi_gpu" not in accelerate_launch("launchers.train", num_processes=2, config_file="fsdp.yaml")


@pytest.mark.parametrize(
    "log, told",
    [
        (" 25%|##  | 1/4 [00:00<00:01,  1.59it/s]Timeout (0:01:00)!\nThread 0x1:", "Timeout (0:01:00)!"),
        ("[rank1]: ValueError: broken\nChildFailedError: \n", "ValueError: broken"),
        ("KeyError: 'a'\nsubprocess.CalledProcessError: Command", "KeyError: 'a'"),
        ("starting\nSegmentation fault\n\n", "Segmentation fault"),
        ("", "exit code 139"),
    ],
)
def test_the_last_error_of_a_log_is_told(log, told, tmp_path):
    (tmp_path / "log.txt").write_text(earlier := "ValueError: of an earlier start\n")
    with (tmp_path / "log.txt").open("a") as file:
        file.write(log)
    assert last_error(tmp_path / "log.txt", 139, begin=len(earlier)) == told


def test_a_sweep_inside_accelerate_launch_is_refused(monkeypatch):
    from launchers.train import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["train", "--multirun", "seed=1,2"])
    with pytest.raises(SystemExit, match=r"would sweep once in every process: run .* hydra/launcher=accelerate"):
        main()


def test_every_node_of_a_slurm_job_gets_its_rank_and_one_address(monkeypatch, tmp_path):
    from hydra_plugins import slurm_launcher

    slurm = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "gpu[07-08]"}
    for name, value in {**slurm, "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1"}.items():
        monkeypatch.setenv(name, value)
    ran = []
    monkeypatch.setattr(Processes, "run", lambda self, command, *rest: (ran.append(command), Outcome(3, "failed"))[1])
    command = [*accelerate_launch("launchers.train", 8), "seed=1"]
    assert slurm_launcher.on_node(command, 8, {}, str(tmp_path)) == 3
    told = {name: ran[0][ran[0].index(name) + 1] for name in ran[0] if name.startswith("--") and name != "--multi_gpu"}
    assert (told["--num_machines"], told["--num_processes"], told["--machine_rank"]) == ("2", "16", "1")
    assert (told["--main_process_ip"], told["--main_process_port"]) == ("gpu07", "20041")
    assert ran[0].count("--multi_gpu") == 1 and ran[0][-3:] == ["-m", "launchers.train", "seed=1"]


def test_slurm_settings_are_those_of_the_submitit_launcher():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `sweeps`")
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["hydra/launcher=slurm", "hydra.launcher.queue.nodes=2", "hydra.launcher.queue.gpus_per_node=8"]
        config = compose("train", overrides=overrides, return_hydra_config=True)
    config.hydra.job.name = config.hydra.sweep.dir = "train"
    launcher = instantiate(config.hydra.launcher)
    assert launcher.world_size == 16 and launcher.queue.params["timeout_min"] == 1440
