"""Command lines in processes of their own, several wrong ones in one, which imports but once."""

import json
import subprocess
import sys

from conftest import ROOT

ONE_AFTER_ANOTHER = """
import importlib, json, sys
for sys.argv in json.loads(sys.argv[1]):
    try:
        importlib.import_module(sys.argv[0]).main()
    except SystemExit as end:  # a text ends a process with code 1
        print(end.code, file=sys.stderr)
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


def one_after_another(commands: list[list[str]]) -> str:
    """What these commands, each a launcher's module and its arguments, write to stderr."""
    return python("-c", ONE_AFTER_ANOTHER, json.dumps(commands)).stderr
