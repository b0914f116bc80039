"""The wheel, installed in an environment of its own, used from an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv

import pytest
from conftest import ROOT

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
KEYS = {"win_rate", "win_rate_ci", "reward_mean", "gold_reward_mean", "kl_mean", "sampled_tokens", "train_seconds"}
MINE = """# @package _global_
defaults: [grpo, _self_]
name: mine
args: {max_steps: 3, learning_rate: 1e-4, max_completion_length: 24}
"""
# Nothing of this clone may be imported, nor this session's settings of Python be used.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Path of `rlhf` in an environment that has the wheel and, of everything else, what is installed here."""
    folder = tmp_path_factory.mktemp("installed")
    run(*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT), cwd=folder)
    venv.create(folder / "environment", with_pip=False)
    (wheel,) = folder.glob("*.whl")
    python = folder / "environment" / "bin" / "python"
    run(*PIP, "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel), cwd=folder)
    packages = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    with open(f"{packages}/dependencies.pth", "w") as path:
        path.write(sysconfig.get_path("purelib"))  # .pth files in there, of the clone, are not followed
    return str(python.with_name("rlhf"))


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


def test_it_is_the_wheel_that_runs(command, empty):
    code = "import launchers, evaluation, rlhf_trl_ext as p; print(p.__file__, launchers.__file__, evaluation.__file__)"
    files = run(command.replace("rlhf", "python"), "-c", code, cwd=empty).split()
    assert all("installed" in file and not file.startswith(str(ROOT)) for file in files), files


def test_the_command_lists_every_launcher(command, empty):
    text = run(command, "--help", cwd=empty)
    launchers = {path.stem for path in (ROOT / "launchers").glob("[a-z]*.py")} - {"entry"}
    assert launchers == {line.split()[0] for line in text.splitlines() if line.startswith("  ")}


def test_smoke_ends_in_results_and_is_reused(command, empty):
    """With an algorithm of the user's own, in a folder of the user's own."""
    (empty / "conf" / "algorithm").mkdir(parents=True)
    (empty / "conf" / "algorithm" / "mine.yaml").write_text(MINE)
    pipeline = (command, "pipeline", "--config-dir", "conf", "experiment=smoke", "policies=[mine]", "reward=gold")
    run(*pipeline, cwd=empty)
    assert sorted(os.listdir(empty)) == ["conf", "outputs"]
    folder = empty / "outputs" / "smoke"
    results = json.loads((folder / "results.json").read_text())
    assert (results["baseline"], results["judge"]) == ("sft", "gold_reward")
    assert set(results["policies"]) == {"mine"} and KEYS | {"peak_memory_mb"} <= set(results["policies"]["mine"])
    assert results["policies"]["mine"]["sampled_tokens"] > 0
    assert (folder / "mine" / "model.safetensors").exists()
    sample = json.loads((folder / "samples-mine" / "samples.jsonl").read_text().splitlines()[0])
    assert {"prompt", "completion", "reward", "gold_reward", "kl"} <= set(sample)

    done = run(*pipeline, cwd=empty)
    stages = {line.split()[0]: line.split()[1] for line in done.splitlines() if "stages/" in line}
    assert len(stages) == 4 and set(stages.values()) == {"reused"}, done
