"""The command `rlhf`: `rlhf <launcher> ...` is `python -m launchers.<launcher> ...`; `rlhf --help` lists them."""

import ast
import os
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NO_COMMANDS = {"entry"}


def names() -> list[str]:
    """The launchers: every module of this folder that can be run."""
    modules = (path.stem for path in FOLDER.glob("*.py"))
    return sorted(name for name in modules if not name.startswith("_") and name not in NO_COMMANDS)


def usage() -> str:
    """One line for each launcher, the first of its docstring."""
    lines = ["usage: rlhf <launcher> [key=value ...], or python -m launchers.<launcher> [key=value ...]", ""]
    for name in names():
        text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
        lines.append(f"  {name:<12}{text.splitlines()[0].partition(': `')[0].rstrip('.')}")
    return "\n".join([*lines, "", "rlhf <launcher> --help lists the settings of one; docs: the README of each folder."])


def main() -> None:
    """Run the launcher that the first argument names. Exits with one sentence where there is no such launcher."""
    name = sys.argv[1] if sys.argv[1:] else "--help"
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name in names():
        del sys.argv[1]
        sys.path.insert(0, os.getcwd())  # as `python -m` does, for modules of the user's own
        runpy.run_module(f"launchers.{name}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: rlhf {name}: no such launcher; allowed are {', '.join(names())}.")


if __name__ == "__main__":
    main()
