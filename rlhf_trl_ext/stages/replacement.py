"""`overwrite=true`: the files that a stage's own record lists are moved aside, and nothing else is touched."""

import os
import shutil
from pathlib import Path, PurePosixPath

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.files import read_mark

OWNER = "versions.json"
# What a stage writes about itself, beside the results in stage.json and the files in a checkpoint's mark.
ABOUT = ("stage.json", "config.yaml", "metrics.jsonl", "alerts.jsonl", "alert_samples.jsonl", "log.txt")
REPLACED = ".replaced-"


def check_replaceable(folder: Path, unowned: set[str]) -> None:
    """Raises ConfigError unless a folder is absent, holds only `unowned` names, or is recorded as that of a stage."""
    if folder.is_symlink():
        raise ConfigError(f"overwrite=true: {folder} is a link to {folder.resolve()}: give that folder itself.")
    others = sorted(path.name for path in folder.glob("*") if path.name not in unowned)
    if others and read_mark(folder / OWNER, ("fingerprint",)) is None:
        raise ConfigError(
            f"overwrite=true: {folder} holds files and no readable {OWNER} of a stage ({', '.join(others[:3])}), so "
            "nothing in it is known to be replaceable: give another output_dir, or none."
        )


def set_aside(folder: Path) -> Path | None:
    """Move what the folder's record lists to a new `.replaced-<n>` in it, which is returned; None for no record.

    The record itself is copied, so that the folder stays a stage's at every moment. The caller holds the folder's lock.
    """
    if not (folder / OWNER).is_file():
        return None
    names = recorded(folder)
    aside = next(path for n in range(1, 10**6) if not (path := folder / f"{REPLACED}{n}").exists())
    aside.mkdir()
    shutil.copy2(folder / OWNER, aside / OWNER)
    for name in names:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, aside / name)
    for parent in sorted({folder / up for name in names for up in Path(name).parents} - {folder}, reverse=True):
        if not any(parent.iterdir()):
            parent.rmdir()
    return aside


def recorded(folder: Path) -> list[str]:
    """Relative names of the files below a stage's folder that its record lists, the mark of a finished stage first.

    A name that leads out of the folder, by `..` or by a link, is not followed.
    """
    names = [*ABOUT, *((read_mark(folder / "stage.json") or {}).get("files") or {})]
    for mark in sorted(folder.glob("*checkpoint-*/complete.json")):
        within = mark.parent.name
        names += [f"{within}/{name}" for name in ("complete.json", *(read_mark(mark) or {}))]
    return [name for name in dict.fromkeys(names) if name != OWNER and _inside(folder, name)]


def _inside(folder: Path, name: str) -> bool:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not os.path.lexists(folder / name):
        return False
    linked = any((folder / parent).is_symlink() for parent in relative.parents if parent != PurePosixPath("."))
    return not linked and not (folder / name).is_dir()


def discard(folder: Path) -> None:
    """Delete what `set_aside` has moved, once the stage that replaces it is finished."""
    for aside in folder.glob(f"{REPLACED}*"):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside, ignore_errors=True)
