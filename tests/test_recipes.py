"""The recipes "add a data set", "add a reward" and "add an algorithm", followed literally."""

import importlib
import json
import sys

import pytest
from recipes import commands, write_files

DATA, REWARDS = "rlhf_trl_ext/data/README.md", "rlhf_trl_ext/rewards/README.md"
TRAINERS = "rlhf_trl_ext/trainers/README.md"
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


TINY = ["++dataset.prompts=16", "++dataset.preferences=16", "args.disable_tqdm=true", "args.learning_rate=1e-3"]
TINY += ["model.build.hidden_size=32", "model.build.layers=1", "model.build.heads=2", "args.save_steps=1"]


def test_algorithms_that_nobody_has_prepared_are_added(reader):
    """Each trains, and goes on from a checkpoint as if it had not been interrupted."""
    folder, run = reader
    write_files(TRAINERS, folder)
    orpo, online, _ = commands(TRAINERS, "Add an algorithm")
    for words in (orpo, online):
        more = ["completion_length=8"] if words is online else []
        record, stage = run(words, *FEW, *TINY, *more)
        assert record["steps"] == 2
        whole = (stage / "model.safetensors").read_bytes()
        if words is orpo:
            (stage / "stage.json").unlink()
            (stage / "seen").unlink()
            for path in (stage / "checkpoint-2").iterdir():
                path.unlink()
            (stage / "checkpoint-2").rmdir()
            record, _ = run(words, *FEW, *TINY)
            assert record["steps"] == 2 and (stage / "model.safetensors").read_bytes() == whole


def test_what_an_added_algorithm_cannot_do_is_said_in_a_sentence(reader):
    folder, run = reader
    write_files(TRAINERS, folder)
    orpo = commands(TRAINERS, "Add an algorithm")[0]
    with pytest.raises(SystemExit, match=r"ORPOTrainer: planned can be subclasses of"):
        run([orpo[0], "plan", *orpo[2:]])
    with pytest.raises(SystemExit, match=r"load_in_8bit=true: ORPOTrainer has no argument quantization_config; leave"):
        run(orpo, *TINY, "model.use_peft=true", "model.load_in_4bit=true")


@pytest.mark.slow
def test_added_algorithms_are_compared_in_a_pipeline_and_swept(reader, monkeypatch):
    folder, _ = reader
    write_files(TRAINERS, folder)
    orpo, _, pipeline = commands(TRAINERS, "Add an algorithm")
    monkeypatch.setattr(sys, "argv", [*pipeline, "dataset.prompts=32", "dataset.evaluation=16"])
    importlib.import_module("launchers.__main__").main()
    results = json.loads((folder / "outputs" / "smoke" / "results.json").read_text())
    assert set(results["policies"]) == {"dpo", "orpo", "cpo", "online_dpo"}
    sweep = [*orpo[:2], "--multirun", *orpo[2:], *FEW, *TINY, "args.beta=0.1,0.2"]
    monkeypatch.setattr(sys, "argv", sweep)
    importlib.import_module("launchers.__main__").main()
    finished = [json.loads(path.read_text()) for path in (folder / "outputs" / "stages").glob("orpo-*/stage.json")]
    assert len(finished) == 3
