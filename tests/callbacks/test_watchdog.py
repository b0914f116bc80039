import subprocess
import sys

import pytest
from conftest import ROOT

from rlhf_trl_ext.callbacks.watchdog import Watchdog

HANGS = """
import time
from rlhf_trl_ext.callbacks.watchdog import Watchdog

def waits_for_a_reward():
    time.sleep(60)

dog = Watchdog(0.5)
dog.on_train_begin()
time.sleep(0.3)
dog.on_step_end()
time.sleep(0.3)  # each step has its own time
dog.on_train_end()
time.sleep(0.8)
print("the first run ended by itself", flush=True)
dog.on_step_begin()
waits_for_a_reward()
"""


def test_a_hanging_step_ends_with_the_stack():
    command = [sys.executable, "-c", HANGS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "the first run ended by itself"
    assert done.returncode == 1 and "waits_for_a_reward" in done.stderr


def test_refusal():
    with pytest.raises(ValueError, match="step_timeout=0: a number of seconds above 0"):
        Watchdog(0)
