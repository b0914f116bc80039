"""The recipes "add a data set" and "add a reward", followed literally."""

import importlib
import json
import sys

import pytest
from recipes import commands, write_files

DATA, REWARDS = "rlhf_trl_ext/data/README.md", "rlhf_trl_ext/rewards/README.md"
FEW = ["args.max_steps=2", "args.per_device_train_batch_size=4", "args.logging_steps=1"]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder of somebody who reads; `run(words)` is their command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(words, *more):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        importlib.import_module("launchers.__main__").main()
        (folder,) = (path for path in (tmp_path / "outputs" / "stages").iterdir() if not (path / "seen").exists())
        (folder / "seen").touch()
        return json.loads((folder / "stage.json").read_text()), folder

    yield tmp_path, run
    for name in ("my_data", "my_rewards"):
        sys.modules.pop(name, None)


def test_a_data_set_is_added(reader):
    folder, run = reader
    write_files(DATA, folder)
    tickets = [{"question": f"Where is ticket {n}?", "good": f"Ticket {n} is solved.", "bad": "No."} for n in range(60)]
    tickets.append({"question": "And this?", "good": "", "bad": "No."})
    (folder / "tickets.jsonl").write_text("\n".join(map(json.dumps, tickets)))
    steps = commands(DATA, "Add a data set")
    assert [words[:2] for words in steps] == [["rlhf", "train"]] * 2
    for words in steps:
        # One of 61 records is malformed: 1.6 %, above the 1 % that are allowed.
        record, _ = run(words, *FEW, "dataset.max_bad_fraction=0.02")
        assert record["steps"] == 2


def test_a_reward_is_added(reader):
    folder, run = reader
    write_files(REWARDS, folder)
    steps = commands(REWARDS, "Add a reward")
    assert [words[:2] for words in steps] == [["rlhf", "train"]] * 2
    online = ["args.max_completion_length=8", "args.per_device_train_batch_size=8", "dataset.prompts=16"]
    for words in steps:
        record, stage = run(words, *FEW, *online)
        logs = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
        assert record["steps"] == 2 and any(log.get("rewards/brief/mean", 0) > 0 for log in logs)
