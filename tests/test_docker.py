"""The Dockerfile, as far as it can be followed without Docker: its files, and its pip line in an empty environment."""

import re
import shlex
import subprocess
import sys
import venv

import pytest
from conftest import ROOT

GPU = {"LOCK": "constraints-gpu.txt", "EXTRAS": "serving,vllm,quantization"}
OFFLINE = ("error sending request", "dns error", "failed to fetch", "connect")


def lines():
    """(instruction, rest) of every line, continued ones joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    return [line.partition(" ")[::2] for line in text.splitlines() if line and not line.startswith("#")]


def arguments(**given):
    """What ARG says, and what a build gives instead."""
    return dict(rest.split("=", 1) for word, rest in lines() if word == "ARG") | given


def installed(**given):
    """The arguments of `pip install` in its RUN line."""
    (line,) = [rest for word, rest in lines() if word == "RUN" and rest.startswith("pip install")]
    for name, value in arguments(**given).items():
        line = line.replace(f"${{{name}}}", value)
    assert "$" not in line
    return [word for word in shlex.split(line)[2:] if word != "--no-cache-dir"]


def ignored(name):
    """Whether .dockerignore keeps a path at the root out of the image."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    return "*" in rules and f"!{name}" not in rules and not any(rule.startswith(f"!{name}/") for rule in rules)


def test_the_image_gets_what_the_wheel_is_made_of_and_nothing_else():
    project = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"packages = \[(.*)\]", project).group(1)
    needed = [*re.findall(r'"(\w+)"', packages), "conf", "deepspeed_configs", "pyproject.toml", "README.md", "LICENSE"]
    assert not [name for name in (*needed, ".ci") if ignored(name)]
    assert all(ignored(name) for name in (".git", ".venv", "outputs", "tests", ".env"))


def test_its_extras_and_locks_exist():
    extras = re.search(
        r"\[project.optional-dependencies\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.S
    ).group(1)
    for given in ({}, GPU):
        known = arguments(**given)
        assert (ROOT / ".ci" / known["LOCK"]).exists()
        assert all(re.search(rf"^{name} = ", extras, re.M) for name in known["EXTRAS"].split(","))
    assert all(f"{name}={value}" in (ROOT / "Dockerfile").read_text() for name, value in GPU.items())


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, GPU], ids=["cpu", "gpu"])
def test_its_pip_line_resolves_in_an_empty_environment(given, tmp_path):
    venv.create(tmp_path / "empty", with_pip=False)
    python = str(tmp_path / "empty" / "bin" / "python")
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--python", python, *installed(**given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and any(words in done.stderr.lower() for words in OFFLINE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    assert "+ trl==1.16" in done.stderr and ("+ vllm==" in done.stderr) == bool(given)
