"""Processes that end with the one that started them; scripts stand for training and for accelerate."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT

from rlhf_trl_ext.stages.processes import Processes

# A parent that runs a command whose child has a session of its own, as accelerate's workers have.
PARENT = """
import sys
from pathlib import Path
from rlhf_trl_ext.stages.processes import Processes
folder, grace = Path(sys.argv[1]), float(sys.argv[2])
processes = Processes(["0", "1"], grace)
command = [sys.executable, str(folder / "child.py"), str(folder)]
processes.map(lambda n: processes.run([*command, str(n)], folder / f"log-{n}.txt"), range(3))
"""
CHILD = """
import os, signal, subprocess, sys, time
folder, number = sys.argv[1:]
work = subprocess.Popen(["sleep", "100"], start_new_session=True)
def save(*_):
    open(f"{folder}/saved-{number}", "w").write("")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open(f"{folder}/begun-{number}", "w").write(os.environ["CUDA_VISIBLE_DEVICES"])
time.sleep(100)
"""


def begun(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("begun-*") if path.read_text())


@pytest.mark.usefixtures("signals_end_processes")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
def test_whatever_ends_the_parent_ends_its_children_and_theirs(how, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, "-c", PARENT, str(tmp_path), "10"]
    parent = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(begun(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert {(tmp_path / name).read_text() for name in begun(tmp_path)} == {"0", "1"}  # each in a place of its own
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 6  # for each of two: guard, child, grandchild in another session
    parent.send_signal(getattr(signal, how))
    code = parent.wait(20)
    assert code == {"SIGTERM": 143, "SIGHUP": 129, "SIGINT": -2, "SIGKILL": -9}[how], parent.stderr.read()
    _, left = psutil.wait_procs(family, timeout=5)
    assert not left and len(begun(tmp_path)) == 2
    saved = len(list(tmp_path.glob("saved-*")))
    assert saved == (2 if how in ("SIGTERM", "SIGHUP") else 0)


def test_a_killed_guard_takes_its_command_along(tmp_path):
    """Also where the guard of a command, and not its parent, is what the kernel kills for want of memory."""
    processes = Processes()
    pid = tmp_path / "pid"

    def kill_the_guard():
        if pid.exists() and pid.read_text():
            psutil.Process(int(pid.read_text())).parent().kill()

    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(100)"
    command = [sys.executable, "-c", script, str(pid)]
    outcome = processes.run(command, tmp_path / "log.txt", watch=kill_the_guard)
    assert outcome.code == 137 and outcome.error == "exit code 137"
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(int(pid.read_text()))


def test_codes_errors_and_time_outs(tmp_path):
    processes, log = Processes(), tmp_path / "log.txt"
    assert processes.run([sys.executable, "-c", "print('ValueError: printed, not raised')"], log).error == ""
    outcome = processes.run([sys.executable, "-c", "raise SystemExit('error: a=1: wrong')"], log)
    assert (outcome.code, outcome.error) == (1, "error: a=1: wrong")  # and not that of the earlier start
    outcome = processes.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], log)
    assert (outcome.code, outcome.error) == (139, "exit code 139")
    outcome = processes.run(["sleep", "100"], log, timeout=0.5)
    assert (outcome.code, outcome.error) == (None, "timeout: not finished after 0.5 s")
