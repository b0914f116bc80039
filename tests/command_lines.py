"""Command lines in processes of their own, and in this one, which has imported already."""

import contextlib
import importlib
import io
import subprocess
import sys
from unittest.mock import patch

from conftest import ROOT


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


def in_process(launcher: str, *arguments: str) -> subprocess.CompletedProcess:
    """`python("-m", launcher, *arguments)` without the seconds of a start."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    command = [launcher, *arguments]
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], contextlib.chdir(ROOT), patch.object(sys, "argv", command):
        try:
            importlib.import_module(launcher).main()
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):  # which Python prints, and ends with 1
                print(code, file=err)
                code = 1
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def one_after_another(commands: list[list[str]]) -> str:
    """What these commands, each a launcher's module and its arguments, write to stderr when they end."""
    return "".join(in_process(*command).stderr for command in commands)
