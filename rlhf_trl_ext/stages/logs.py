"""Why a process failed, from the log that it wrote."""

import re
from pathlib import Path

ERROR = re.compile(r"^(error: |[\w.]*(Error|Exception|Interrupt|Exit|Timeout)\b)")
# What a line of a log may begin with: a rank, or a progress bar that it was written behind.
PREFIX = re.compile(r"^(\[rank\d+\]:|.*\d%\|.*?(it/s|s/it|\?)\])\s*")


def last_error(log: Path, code: int, begin: int = 0) -> str:
    """Why a process failed: the last line of its log that reads like an error, or else the last line, or its code.

    begin: byte at which the process began to write.
    """
    with log.open("rb") as file:
        file.seek(begin)
        lines = [PREFIX.sub("", line.strip()) for line in file.read().decode(errors="replace").splitlines()]
    errors = [line for line in lines if ERROR.match(line)]
    # What accelerate says of a process that failed is not why it did.
    own = [line for line in errors if "ChildFailedError" not in line and "CalledProcessError" not in line]
    message = (own or errors or [line for line in lines if line] or [""])[-1]
    return message[:300] or f"exit code {code}"
