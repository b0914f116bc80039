"""What `overwrite=true` takes away: what a stage's own record lists, and nothing in five dangerous places."""

import json
import os

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.checkpoints import mark
from rlhf_trl_ext.stages.stage import Stage, exclusive


def stage(folder, **changes):
    config = {"kind": "train", "name": "sft", "output_root": "unused", "seed": 0, "args": {}, "overwrite": True}
    return Stage(OmegaConf.create({**config, "output_dir": str(folder), **changes}))


def run(folder, seed=0):
    """A finished stage with a checkpoint, and the files of somebody else in the same folder."""
    made = stage(folder, seed=seed, overwrite=False)
    made.begin()
    for name in ("model.safetensors", "metrics.jsonl", "checkpoint-4/model.safetensors", "checkpoint-4/state.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name} of seed {seed}")
    mark(folder / "checkpoint-4")
    made.finish({"steps": 4})
    for name in ("thesis.txt", "checkpoint-4/notes.txt"):
        (folder / name).write_text("mine")
    return made


def everything(folder) -> dict[str, str]:
    """Relative name -> text of all files below a folder, without locks."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in found.items() if not name.endswith(".lock")}


def replaced_by(new) -> None:
    """What every kind of stage does."""
    if new.result is None:
        with exclusive(new.folder, wait=not new.overwrites):
            new.begin()


def cwd(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "thesis.txt").write_text("mine")
    (folder / "stage.json").write_text('{"files": {"thesis.txt": {}}}')  # no record of a run's beginning
    return "."


def home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    (folder / ".ssh").mkdir()
    (folder / ".ssh" / "id").write_text("mine")
    return "~"


def parent_of_stages(folder, monkeypatch):
    run(folder / "sft")
    return folder


def live(folder, monkeypatch):
    run(folder)
    lock = FileLock(folder / ".lock")
    lock.acquire()
    monkeypatch.setattr(live, "lock", lock, raising=False)
    return folder


def link(folder, monkeypatch):
    run(folder / "elsewhere")
    (folder / "link").symlink_to(folder / "elsewhere")
    return folder / "link"


@pytest.mark.parametrize("place", [cwd, home, parent_of_stages, live, link])
def test_nothing_is_taken_from_a_dangerous_place(place, tmp_path, monkeypatch):
    folder = place(tmp_path, monkeypatch)
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match=r"overwrite=true|in use by another run"):
        replaced_by(stage(folder, seed=1))
    assert everything(tmp_path) == before


def test_only_what_the_record_lists_is_replaced_and_kept_until_the_new_one_is_finished(tmp_path):
    run(tmp_path)
    before = everything(tmp_path)
    new = stage(tmp_path, seed=1)
    replaced_by(new)
    left = everything(tmp_path)
    aside = {name.removeprefix(".replaced-1/"): text for name, text in left.items() if name.startswith(".replaced-1/")}
    foreign = {"thesis.txt": "mine", "checkpoint-4/notes.txt": "mine"}
    assert aside == {name: text for name, text in before.items() if name not in foreign}
    assert {name for name in left if not name.startswith(".replaced")} == {*foreign, "versions.json", "config.yaml"}
    assert stage(tmp_path, seed=1, overwrite=False).result is None  # begun, and neither finished nor another run's
    new.finish({"steps": 2})
    after = everything(tmp_path)
    assert {name: after[name] for name in foreign} == foreign and not any(".replaced" in name for name in after)
    assert stage(tmp_path, seed=1, overwrite=False).result["steps"] == 2


def test_a_record_that_points_elsewhere_is_not_followed(tmp_path):
    folder, other = tmp_path / "run", tmp_path / "other"
    run(folder)
    other.mkdir()
    (other / "weights.bin").write_text("mine")
    (folder / "linked").symlink_to(other)
    record = json.loads((folder / "stage.json").read_text())
    record["files"] |= {name: {} for name in ("../other/weights.bin", str(other / "weights.bin"), "linked/weights.bin")}
    (folder / "stage.json").write_text(json.dumps(record))
    replaced_by(stage(folder, seed=1))
    assert (other / "weights.bin").read_text() == "mine" and os.path.islink(folder / "linked")


@pytest.mark.parametrize("value", ["no", "off", "None", "false", None, False])
def test_words_that_are_not_true_replace_nothing(value, tmp_path):
    run(tmp_path)
    before = everything(tmp_path)
    replaced_by(stage(tmp_path, overwrite=value))
    assert everything(tmp_path) == before
