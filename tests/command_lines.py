"""Command lines in processes of their own, and several wrong ones in this one, which has imported already."""

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


def one_after_another(commands: list[list[str]]) -> str:
    """What these commands, each a launcher's module and its arguments, write to stderr when they end."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(ROOT):
        for command in commands:
            with patch.object(sys, "argv", command):
                try:
                    importlib.import_module(command[0]).main()
                except SystemExit as end:  # a text ends a process with code 1
                    print(end.code, file=printed)
    return printed.getvalue()
