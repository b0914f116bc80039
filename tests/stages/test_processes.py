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
folder, grace, modules = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
processes = Processes([None] * 2 if modules else ["0", "1"], grace, modules)
command = [sys.executable, *(["-m", "child"] if modules else [str(folder / "child.py")]), str(folder)]
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
open(f"{folder}/begun-{number}", "w").write(os.environ.get("CUDA_VISIBLE_DEVICES", "None"))
time.sleep(100)
"""


def begun(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("begun-*") if path.read_text())


@pytest.mark.usefixtures("signals_end_processes")
@pytest.mark.parametrize("modules", [(), ("json",)], ids=["started", "forked"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
def test_whatever_ends_the_parent_ends_its_children_and_theirs(how, modules, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, "-c", PARENT, str(tmp_path), "10", *modules]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(begun(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    places = {(tmp_path / name).read_text() for name in begun(tmp_path)}
    assert places == ({"None"} if modules else {"0", "1"})  # each in a place of its own
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 6 + len(modules)  # for each of two: guard, child, grandchild in another session; the warm one
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


MODULE = """
import json, os, sys, threading, atexit
from rlhf_trl_ext.stages import guard
atexit.register(print, "at exit")
state = [__name__, sys.argv[1:], os.getcwd(), os.environ["COLOUR"], sys.stdin.read(), hasattr(guard, "edited")]
print(json.dumps(state))
sys.exit(sys.argv[1])
"""


def test_a_forked_command_is_like_one_that_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "command.py").write_text(MODULE)
    package = tmp_path / "rlhf_trl_ext"
    (package / "stages").mkdir(parents=True)
    for name in ("__init__.py", "stages/__init__.py", "stages/guard.py", "stages/warm.py"):
        (package / name).write_text((ROOT / "rlhf_trl_ext" / name).read_text() if "__init__" not in name else "")
    environment = {"PYTHONPATH": str(tmp_path), "COLOUR": "blue"}
    command = [sys.executable, "-m", "command", "error: a=1: wrong", "b"]
    started, forked = tmp_path / "started.txt", tmp_path / "forked.txt"
    assert Processes().run(command, started, environment).error == "error: a=1: wrong"
    with Processes(modules=("json", "absent")) as processes:
        outcome = processes.run(command, forked, environment)
        assert (outcome.code, outcome.error) == (1, "error: a=1: wrong")
        assert forked.read_text() == started.read_text() and '"blue", "", false' in forked.read_text()
        with (package / "stages" / "guard.py").open("a") as file:
            file.write("edited = True\n")
        processes.run(command, forked, environment)  # its own modules are those of now
        assert '"blue", "", true' in forked.read_text()
        processes.run(command, forked, {**environment, "COLOUR": "red"})  # what was imported may have read it
        assert '"red", "", true' in forked.read_text()
        outcome = processes.run(
            [sys.executable, "-m", "timeit", "-n1", "-r1", "import os; os.kill(os.getpid(), 11)"], forked
        )
        assert (outcome.code, outcome.error) == (139, "exit code 139")


@pytest.mark.usefixtures("signals_end_processes")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_parent_that_ends_while_packages_are_imported_leaves_nothing(how, tmp_path):
    slow = "import pathlib, time\npathlib.Path({!r}).touch()\nfor _ in range(1000): time.sleep(0.1)"
    (tmp_path / "slow.py").write_text(slow.format(str(tmp_path / "importing")))
    (tmp_path / "child.py").write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), "10", "slow"], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "importing").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    family = psutil.Process(parent.pid).children(recursive=True)
    parent.send_signal(getattr(signal, how))
    parent.wait(5)
    assert not psutil.wait_procs(family, timeout=5)[1]
