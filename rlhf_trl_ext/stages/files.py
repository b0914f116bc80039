"""Digests of files, and records of the files of finished results."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.files import write

LARGE = 2**26  # bytes; above, a digest is kept in the cache, and records know a file by its size
SETTLED = 2_000_000_000  # ns; a file that was changed more recently may change again within one tick of its clock


def digest(file: Path) -> str:
    """SHA-256 of a file's content, whole, also of a large one.

    Digests of files above 64 MiB are kept below `$XDG_CACHE_HOME/rlhf_trl_ext`, under device, inode, size and the times
    of the last change of content and of the inode: the kernel sets the latter at every write, and nobody can set it
    back, so that a file edited in place is read again.
    """
    stat = file.stat()
    if stat.st_size <= LARGE:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    known = json.dumps([stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cached = home / "rlhf_trl_ext" / "sha256" / hashlib.sha256(known.encode()).hexdigest()
    with contextlib.suppress(OSError):
        if len(text := cached.read_text()) == 64:
            return text
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if time.time_ns() - stat.st_ctime_ns > SETTLED:
        with contextlib.suppress(OSError, ConfigError):
            write(cached, sha256)
    return sha256


def tree(folder: Path) -> dict[str, str]:
    """Relative name -> digest of every file below a folder, symbolic links followed; "absent" for a broken link."""
    digests, seen = {}, set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            file = Path(place, name)
            digests[str(file.relative_to(folder))] = digest(file) if file.is_file() else "absent"
    return dict(sorted(digests.items()))


def identity(file: Path) -> dict:
    """Size and, up to 64 MiB, SHA-256: enough for a torn write, without reading terabytes."""
    size = file.stat().st_size
    return {"bytes": size} | ({"sha256": digest(file)} if size <= LARGE else {})


def record(folder: Path, files: Iterable[Path]) -> dict[str, dict]:
    """Relative name -> `identity` of files below a folder."""
    return {str(file.relative_to(folder)): identity(file) for file in sorted(files)}


def damage(folder: Path, recorded: dict[str, dict]) -> str:
    """What is wrong with recorded files: one that is missing, or has another size or content; "": nothing."""
    for name, known in recorded.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        current = identity(folder / name)
        if current != known:
            size = known.get("bytes") if isinstance(known, dict) else "?"
            return f"{name} is damaged: {current['bytes']} bytes of {size}, or other contents"
    return ""
