"""The pinned versions are those that pyproject.toml's extras can be installed with."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SETUP = ("dev", "tensorboard", "benchmarks", "pdf", "sweeps", "math", "serving")
FILES = {"constraints.txt": SETUP, "constraints-gpu.txt": (*SETUP, "vllm", "quantization")}
OLDER = {"fastapi", "numpy"}  # on a GPU, for vLLM
OFFLINE = ("error sending request", "dns error", "failed to fetch", "connect")


def pinned(name):
    """Versions by normalised name."""
    lines = (ROOT / ".ci" / name).read_text().splitlines()
    pairs = (line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {re.sub("[-_.]+", "-", package.split("[")[0]).lower(): version for package, version in pairs}


def test_both_files_have_the_same_versions_but_for_what_vllm_demands():
    usual, gpu = (pinned(name) for name in FILES)
    assert {name for name in usual.keys() & gpu.keys() if usual[name] != gpu[name]} == OLDER
    assert {"vllm", "bitsandbytes", "nvidia-cublas"} <= gpu.keys()


def test_the_makefile_installs_the_extras_that_are_resolved():
    makefile = (ROOT / "Makefile").read_text()
    for name, extras in FILES.items():
        assert f"-c .ci/{name} -e '.[{','.join(extras)}]'" in makefile


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_both_files_resolve(name, tmp_path):
    extras = [argument for extra in FILES[name] for argument in ("--extra", extra)]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-c", f".ci/{name}", *extras]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11", "-q"]
    environment = {key: value for key, value in os.environ.items() if key != "UV_OFFLINE"}
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "resolved.txt")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and any(words in done.stderr.lower() for words in OFFLINE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    resolved = (tmp_path / "resolved.txt").read_text()
    assert "trl==1.16" in resolved and ("vllm==" in resolved) == (name == "constraints-gpu.txt")
