"""Marks that are empty, cut, binary or of another shape: a sentence or the promised fallback, never a traceback."""

import errno
import json
import logging

import pytest
from omegaconf import OmegaConf
from runs_on_disk import DAMAGED

from rlhf_trl_ext import files
from rlhf_trl_ext.callbacks.records import MetricsRecorder, read_metrics
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.files import read_mark, write
from rlhf_trl_ext.stages.checkpoints import last_whole, mark
from rlhf_trl_ext.stages.stage import Stage


def stage(folder):
    config = {"kind": "train", "name": "sft", "output_root": "unused", "seed": 0, "args": {}}
    return Stage(OmegaConf.create({**config, "output_dir": str(folder)}))


@pytest.mark.parametrize("content", DAMAGED)
def test_a_checkpoint_whose_mark_is_damaged_is_set_aside(content, tmp_path, caplog):
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_text("weights")
        mark(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-4" / "complete.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert last_whole(tmp_path) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-4 cannot be resumed from (complete.json cannot be read)" in caplog.text


def test_a_mark_with_wrong_entries_is_damaged(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "model.safetensors").write_text("weights")
    (tmp_path / "checkpoint-2" / "complete.json").write_text('{"model.safetensors": null}')
    assert last_whole(tmp_path) is None


@pytest.mark.parametrize("content", [*DAMAGED, b"{}"])
def test_a_stage_whose_mark_is_damaged_is_not_finished(content, tmp_path, caplog):
    made = stage(tmp_path)
    made.begin()
    (tmp_path / "stage.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert stage(tmp_path).result is None
    assert "stage.json cannot be read: the stage is not finished" in caplog.text


@pytest.mark.parametrize("content", [*DAMAGED, b"{}"])
def test_a_damaged_record_of_a_beginning_is_told(content, tmp_path):
    stage(tmp_path).begin()
    (tmp_path / "versions.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"versions.json cannot be read: move the folder away"):
        _ = stage(tmp_path).result


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_lines_of_metrics_are_cut(content, tmp_path):
    first = json.dumps({"step": 1, "seconds": 2.0, "loss": 0.5}).encode() + b"\n"
    (tmp_path / "metrics.jsonl").write_bytes(first + content)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    state = type("State", (), {"global_step": 1, "is_world_process_zero": True})
    MetricsRecorder(tmp_path).on_train_begin(None, state, None)
    assert (tmp_path / "metrics.jsonl").read_bytes() == first


def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "stage.json"
    write(path, "before")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ConfigError, match=rf"{path}: the disk is full; free some space, or give another output_root"):
        write(path, "after")
    assert path.read_text() == "before" and [one.name for one in tmp_path.iterdir()] == ["stage.json"]


def test_only_a_full_disk_is_told_so(tmp_path):
    with pytest.raises(PermissionError), files.full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(ConfigError, match="disk is full"), files.full_disk(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors says it


def test_a_mark_is_read_or_is_none(tmp_path):
    assert read_mark(tmp_path / "absent.json") is None
    write(tmp_path / "mark.json", '{"a": 1}')
    assert read_mark(tmp_path / "mark.json", ("a",)) == {"a": 1} and read_mark(tmp_path / "mark.json", ("b",)) is None
