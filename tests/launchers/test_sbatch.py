"""launchers/slurm.sbatch with two nodes that are processes of this machine, and a Slurm of two small scripts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

SRUN = """#!/usr/bin/env bash
shift  # its own option
pids=()
for node in 0 1; do SLURM_NODEID=$node "$@" & pids+=($!); done
trap 'kill -TERM "${pids[@]}"' TERM
code=0
for pid in "${pids[@]}"; do while kill -0 "$pid" 2>/dev/null; do wait "$pid" || code=$?; done; done
exit $code
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$SLURM_RECORD"; fi
"""


@pytest.fixture
def submit(tmp_path):
    """`submit(*arguments)`: the batch script as Slurm starts it, as a process."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {"SLURM_JOB_NODELIST": "node[0-1]", "SLURM_NNODES": "2", "SLURM_JOB_ID": str(os.getpid())}
    environment = {
        **os.environ,
        **slurm,
        "PATH": path,
        "SLURM_RECORD": str(tmp_path / "record"),
        "PYTHONPATH": str(ROOT),
    }

    def start(*arguments):
        command = ["bash", str(ROOT / "launchers" / "slurm.sbatch"), *arguments]
        log = (tmp_path / "log").open("a")
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)

    return start


def test_two_nodes_train_one_model_and_a_preempted_job_is_queued_again_and_goes_on(submit, tmp_path, few):
    words = [word for word in few if "max_steps" not in word]
    words += ["++args.max_steps=60", "++args.save_steps=5", "args.use_cpu=true", "num_processes=2", "step_timeout=120"]
    words += ["algorithm=sft", "model=tiny", f"output_dir={tmp_path}/run"]
    job = submit(*words)
    log = tmp_path / "log"
    for _ in range(600):
        if list((tmp_path / "run").glob("checkpoint-*")):
            break
        assert job.poll() is None, log.read_text()[-3000:]
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 0
    assert (tmp_path / "record").read_text().split() == ["requeue", str(os.getpid())]
    assert submit(*words).wait(300) == 0, log.read_text()[-3000:]
    record = json.loads((tmp_path / "run" / "stage.json").read_text())
    assert "goes on from" in log.read_text() and (record["steps"], record["world_size"]) == (60, 2)
