"""Which checkpoint a run resumes from, which are kept."""

import json
import logging
from types import SimpleNamespace

import pytest

from rlhf_trl_ext.stages.checkpoints import Checkpoints, last_whole


@pytest.fixture
def save(tmp_path):
    """`save(step)`: a checkpoint as a run leaves it."""

    def saved(step, limit=None, best=None):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "critic").mkdir(parents=True)
        for name in ("model.safetensors", "critic/model.safetensors", "trainer_state.json"):
            (folder / name).write_text(f"{name} of step {step}")
        state = SimpleNamespace(global_step=step, is_world_process_zero=True, best_model_checkpoint=best)
        Checkpoints(limit).on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
        return folder

    return saved


def cut(folder):
    (folder / "complete.json").unlink()


def truncate(folder):
    (folder / "model.safetensors").write_text("model")


def alter(folder):
    (folder / "model.safetensors").write_text("model.safetensors of step 9")


def remove(folder):
    (folder / "critic" / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "harm, told",
    [
        (cut, "the run ended while it was written"),
        (truncate, "model.safetensors is damaged: 5 bytes of 27"),
        (alter, "model.safetensors is damaged"),
        (remove, "critic/model.safetensors is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(harm, told, save, tmp_path, caplog):
    before, newest = save(2), save(4)
    assert last_whole(tmp_path) == str(newest)
    for _ in range(2):  # also where one was set aside before
        harm(newest)
        with caplog.at_level(logging.WARNING):
            assert last_whole(tmp_path) == str(before)
        assert f"checkpoint-4 cannot be resumed from ({told}" in caplog.text
        newest = save(4)
    harm(newest)
    harm(before)
    assert last_whole(tmp_path) is None


def test_the_best_and_the_newest_stay(save, tmp_path):
    best = save(2, limit=1)
    for step in (4, 6, 8):
        save(step, limit=1, best=str(best))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-8"]
    save(10, limit=3, best=str(best))
    assert len(list(tmp_path.iterdir())) == 3


def test_older_ones_are_removed_only_when_the_new_one_is_whole(composed, few, tmp_path, monkeypatch):
    """A run that dies while it saves: TRL itself would have removed the only other checkpoint by then."""
    from rlhf_trl_ext.stages import checkpoints
    from rlhf_trl_ext.stages.train import train

    config = composed("train", "algorithm=sft", *few, "++args.save_steps=2", "++args.save_total_limit=1")
    config.output_dir = str(tmp_path)
    whole, mark = [], checkpoints.mark

    def dies(folder):
        whole.append(folder)
        if len(whole) == 2:
            raise KeyboardInterrupt
        mark(folder)

    monkeypatch.setattr(checkpoints, "mark", dies)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["global_step"] == 4
    assert last_whole(tmp_path) == str(tmp_path / "checkpoint-2")
