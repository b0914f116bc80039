"""What every Markdown file says: links and paths lead somewhere, commands compose, `make` targets and modules exist."""

import ast
import contextlib
import functools
import importlib
import io
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser
from recipes import write_files

TOP = ("rlhf_trl_ext", "conf", "launchers", "evaluation", "tests", "deepspeed_configs", "hydra_plugins", ".ci")
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
PAGES = sorted(LISTED.stdout.split()) or sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/**/*.md"))
COMMAND = re.compile(r"(python|accelerate|rlhf|make|pip|git|cd|pytest) ")
PLACEHOLDER = re.compile(r"<[^<>]*>")


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    return re.findall(r"^```bash\n(.*?)^```", text(page), flags=re.M | re.S)


def commands(page):
    """Every command of a page as words, from its bash blocks and from code within sentences."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        words = shlex.split(PLACEHOLDER.sub("x", line), comments=True) if COMMAND.match(line) else []
        for start in [0, *(place + 1 for place, word in enumerate(words) if word == "&&")]:
            command = words[start:]
            command = command[: command.index("&&")] if "&&" in command else command
            if len(command) > 1:
                yield command


def called(command):
    """(module, arguments) that a command starts; None where it starts none, or its name is left open."""
    if {"x", "launchers.x", "rlhf --help"} & {*command[:3], " ".join(command)}:
        return None
    if command[0] == "rlhf":
        return f"launchers.{command[1]}", command[2:]
    if command[0] in ("python", "accelerate") and "-m" in command:
        at = command.index("-m")
        return command[at + 1], command[at + 2 :]
    return None


ALL = [(page, *found) for page in PAGES for command in commands(page) if (found := called(command))]
LAUNCHED = [(page, module, words) for page, module, words in ALL if module.startswith("launchers.")]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if not re.match(r"https?:|#", target):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    for span in re.findall(r"`([\w./{},-]+/[\w./{},-]*)`", text(page)):
        brace = re.search(r"{(.*)}", span)
        for name in brace.group(1).split(",") if brace else [""]:
            path = span.replace(brace.group(0), name) if brace else span
            if path.split("/")[0] in TOP:
                assert (ROOT / path).exists(), path


def test_the_first_page_is_short():
    assert len(text("README.md").splitlines()) <= 200


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for page in PAGES:
        for command in commands(page):
            if command[0] == "make":
                assert set(command[1:]) <= targets, (page, command)


@functools.cache
def source(module):
    """Of a module, or of all files of a package that can be run."""
    path = ROOT / module.replace(".", "/")
    files = sorted(path.glob("*.py")) if (path / "__main__.py").exists() else [path.with_suffix(".py")]
    return "".join(file.read_text(encoding="utf-8") for file in files if file.exists())


def test_modules_can_be_run_with_the_options_that_are_written():
    for page, module, words in ALL:
        if module.split(".")[0] not in TOP:
            assert importlib.util.find_spec(module.split(".")[0]), (page, module)
            continue
        runs = (ROOT / module.replace(".", "/") / "__main__.py").exists()
        assert runs or '__name__ == "__main__"' in source(module), (page, module)
        if not module.startswith("launchers."):
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in source(module), (page, module, option)


@pytest.mark.parametrize("page", PAGES)
def test_python_imports_what_exists(page):
    for block in re.findall(r"^```python\n(.*?)^```", text(page), flags=re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in TOP:
                own = source(node.module) or source(f"{node.module}.__init__")
                assert all(re.search(rf"\b{name.name}\b", own) for name in node.names), ast.unparse(node)


def single(words):
    """Arguments of a launcher with, of a sweep, the first value of every list; without intervals that are searched."""
    if not {"-m", "--multirun"} & set(words):
        return words
    words = [word for word in words if word not in ("-m", "--multirun")]
    parsed = OverridesParser.create().parse_overrides(words)
    kept = [(word, override) for word, override in zip(words, parsed, strict=True) if not override.is_interval_sweep()]
    return [
        f"{word.partition('=')[0]}={next(override.sweep_string_iterator())}" if override.is_discrete_sweep() else word
        for word, override in kept
    ]


def test_commands_of_launchers_compose(monkeypatch, tmp_path):
    """By the launcher itself, `--cfg job`, with the arguments as they are written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()  # stands for every folder of the reader's
    (tmp_path / "x" / "config.yaml").touch()
    for page in PAGES:
        write_files(page, tmp_path)
    assert len(LAUNCHED) > 20
    failures = []
    for page, module, words in LAUNCHED:
        words = [word for word in words if word not in ("--help", "...")]
        monkeypatch.setattr(sys, "argv", [module, *single(words), "--cfg=job"])
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module(module).main()
        except SystemExit as end:
            if end.code:
                failures.append((page, " ".join([module, *words]), end.code))
    assert not failures, "\n".join(map(str, failures))
