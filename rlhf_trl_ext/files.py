"""Files that are there wholly or not at all, and the reading of those that a crash or a hand has damaged."""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rlhf_trl_ext.configuration.checks import ConfigError


def finite(data):
    """Plain data with None in the place of every float that is not finite, for JSON that every parser reads."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write(path: Path, content: str | bytes) -> None:
    """Write a file aside, flush it to the disk and rename it. Raises ConfigError where the disk is full."""
    with written(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def written(path: Path, mode: str = "w") -> Iterator[IO]:
    """An open file that becomes `path` when the block ends without an exception.

    Raises ConfigError where the disk is full.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """A full disk inside becomes a ConfigError that names the file; path: what is written, where the error has none."""
    try:
        yield
    except Exception as error:
        if not _is_full(error, path):
            raise
        raise ConfigError(
            f"{getattr(error, 'filename', None) or path}: the disk is full; free some space, or give another "
            "output_root. The same command goes on from the last whole checkpoint."
        ) from error


def _is_full(error: Exception, path: Path) -> bool:
    """Whether an error is that of a full disk; torch and safetensors raise theirs without `errno`."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error):
        return True
    return "PytorchStreamWriter" in str(error) and shutil.disk_usage(path).free < 2**20


def read_mark(path: Path, keys: Sequence[str] = ()) -> dict | None:
    """What a JSON file of this project records; None where it is absent, damaged, or lacks one of `keys`."""
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and all(key in content for key in keys) else None
