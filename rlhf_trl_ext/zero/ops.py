"""DeepSpeed's operators that are compiled on first use, built ahead: `python -m rlhf_trl_ext.zero.ops`, `make ops`.

PyTorch builds under a lock file that says nothing of its owner, and waits for ever on one whose owner was killed.
"""

import logging
import os
import sys
from pathlib import Path

logger = logging.getLogger(__name__)
# What runs on the host: its optimizer, for offload, and communication between processes without GPUs.
BUILDERS = {"ShareMemCommBuilder": "processes on CPU", "CPUAdamBuilder": "deepspeed=zero3_offload"}


def build() -> None:
    """Compile the operators that this machine lacks, after stale locks are removed."""
    from deepspeed.accelerator import get_accelerator

    remove_stale_locks()
    for name, use in BUILDERS.items():
        builder = get_accelerator().create_op_builder(name)
        if builder is None or builder.name == "deepspeed_not_implemented":
            continue
        print(f"{builder.name}, for {use}: building, or there already")
        builder.load(verbose=False)


def remove_stale_locks() -> None:
    """Remove the locks of builds that were killed, and log which."""
    for lock in stale_locks():
        logger.warning("%s was left by a build that was killed: removed, or this run would wait for it.", lock)
        lock.unlink(missing_ok=True)


def stale_locks() -> list[Path]:
    """Locks of DeepSpeed's builds that no process of this machine holds open.

    Where the run has several machines, which may share the folder, no lock counts as stale.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE") or not Path("/proc/self/fd").exists():
        return []
    locks = {lock.resolve() for lock in _extensions().glob("*/*/lock")} | set(_extensions().glob("*/lock"))
    return sorted(locks - _open_files() if locks else locks)


def _extensions() -> Path:
    from torch.utils.cpp_extension import get_default_build_root

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()).resolve()


def _open_files() -> set[Path]:
    """Files that processes hold open, as far as this user may see."""
    paths = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            paths.add(Path(os.readlink(link)))
        except OSError:  # ended meanwhile, or another user's
            continue
    return paths


if __name__ == "__main__":
    sys.exit(build())
