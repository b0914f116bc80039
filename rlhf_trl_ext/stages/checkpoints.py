"""Checkpoints that are whole or not counted: marked once every process has written, checked before a run resumes."""

import json
import logging
import os
import shutil
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

from rlhf_trl_ext.files import read_mark, write
from rlhf_trl_ext.stages import files

logger = logging.getLogger(__name__)
MARK = "complete.json"


class Checkpoints(TrainerCallback):
    """Marks a checkpoint when all processes have written their share, and only then removes older ones.

    TRL removes them as soon as the first process is done, when the newest one may still lack the files of the others.

    limit: how many are kept; null: all. The newest and the best are never removed. `args.save_total_limit` must be
    null, or TRL removes by itself.
    """

    def __init__(self, limit: int | None):
        self.limit = limit

    def on_save(self, args, state, control, **kwargs):
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            mark(Path(args.output_dir, f"checkpoint-{state.global_step}"))
            rotate_checkpoints(args.output_dir, self.limit, state.best_model_checkpoint)


def mark(checkpoint: Path) -> None:
    """Record what belongs to a whole checkpoint, in a file that is there wholly or not at all."""
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARK]
    for path in paths:  # the mark says that they are on the disk
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write(checkpoint / MARK, json.dumps(files.record(checkpoint, paths), indent=1))


def damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint: a file that is missing or changed, or a save that was cut off; "": nothing."""
    if not (checkpoint / MARK).exists():
        return "the run ended while it was written"
    identities = read_mark(checkpoint / MARK)
    return f"{MARK} cannot be read" if identities is None else files.damage(checkpoint, identities)


def last_step(folder: Path) -> int:
    """The step of the newest marked checkpoint in a run's folder; 0 where there is none."""
    return max((int(mark.parent.name.rpartition("-")[2]) for mark in folder.glob(f"checkpoint-*/{MARK}")), default=0)


def last_whole(folder: Path) -> str | None:
    """The newest whole checkpoint in a run's folder. Damaged ones are set aside, and a warning names them."""
    newest = [None]
    if PartialState().is_main_process:
        while (checkpoint := get_last_checkpoint(str(folder))) and (reason := damage(Path(checkpoint))):
            aside = Path(folder, f"broken-{Path(checkpoint).name}")
            logger.warning("%s cannot be resumed from (%s): set aside as %s.", checkpoint, reason, aside.name)
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(checkpoint, aside)
        newest = [checkpoint]
    return broadcast_object_list(newest)[0]
