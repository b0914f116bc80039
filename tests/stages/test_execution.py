"""Stages of several pipelines: order, failures, reuse and places; a script stands for training."""

import json
import sys
from types import SimpleNamespace

import pytest
from filelock import FileLock

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages import execution
from rlhf_trl_ext.stages.execution import Execution

SCRIPT = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[-1])
with open(folder.parent / "runs.txt", "a") as file:
    file.write(f"{folder.name}@{os.environ.get('CUDA_VISIBLE_DEVICES')} ")
if (folder / "broken").exists():
    sys.exit("the stage broke")
(folder / "stage.json").write_text(json.dumps({"name": folder.name}))
"""


class StandIn:
    """A stage whose result is its file."""

    config, processes, fingerprint, overwrites = {}, None, "same", False

    def __init__(self, folder):
        self.folder, self.name = folder, folder.name

    @property
    def result(self):
        path = self.folder / "stage.json"
        return json.loads(path.read_text()) if path.exists() else None

    def begin(self):
        self.folder.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(pipelines, **options)`: failures of an execution, each pipeline a dictionary of stages and their needs."""
    monkeypatch.setattr(execution, "Stage", lambda config, processes: SimpleNamespace(fingerprint="same"))
    script = tmp_path / "stage.py"
    script.write_text(SCRIPT)

    def pipeline(name, needs):
        made = SimpleNamespace(records={}, folders={})
        made.configs = {stage: SimpleNamespace(needs=of) for stage, of in needs.items()}
        made.stage, made.launcher = lambda stage: StandIn(tmp_path / f"{name}-{stage}"), lambda stage: "train"
        return made

    def executed(pipelines, **options):
        pipelines = {name: pipeline(name, needs) for name, needs in pipelines.items()}
        failures = Execution(pipelines, command=lambda module: [sys.executable, str(script)], **options).run()
        ran = tmp_path / "runs.txt"
        told = ran.read_text().split() if ran.exists() else []
        ran.unlink(missing_ok=True)
        return failures, told, pipelines

    return executed


CHAIN = {"policy": ["sft", "reward"], "reward": ["sft"], "sft": []}


def test_a_failed_stage_stops_what_needs_it_and_nothing_else(run, tmp_path):
    (tmp_path / "a-reward").mkdir()
    (tmp_path / "a-reward" / "broken").write_text("")
    failures, told, pipelines = run({"a": CHAIN, "b": CHAIN}, places=["0", "1"], keep_going=True)
    assert set(failures) == {("a", "reward"), ("a", "policy")}
    assert failures["a", "reward"].splitlines()[-1] == "stage a-reward failed (exit 1): the stage broke"
    assert failures["a", "policy"] == "needs reward, which failed"
    # Records have the order of the stages, in which the results of two equal runs are written, not that of their ends.
    assert list(pipelines["b"].records) == ["policy", "reward", "sft"] and list(pipelines["a"].records) == ["sft"]
    stages = [one.split("@")[0] for one in told]
    assert sorted(stages) == ["a-reward", "a-sft", "b-policy", "b-reward", "b-sft"]
    assert stages.index("b-sft") < stages.index("b-reward") < stages.index("b-policy")
    assert {one.split("@")[1] for one in told} == {"0", "1"}  # every stage has GPUs of its own

    (tmp_path / "a-reward" / "broken").unlink()
    failures, told, _ = run({"a": CHAIN, "b": CHAIN}, keep_going=True)
    assert not failures and [one.split("@")[0] for one in told] == ["a-reward", "a-policy"]  # nothing finished again


def test_without_keeping_going_nothing_begins_after_a_failure(run, tmp_path):
    (tmp_path / "a-sft").mkdir()
    (tmp_path / "a-sft" / "broken").write_text("")
    failures, told, _ = run({"a": CHAIN, "b": CHAIN})
    assert set(failures) == {("a", "sft")} and len(told) == 1


def test_stages_that_need_each_other_are_told(run):
    with pytest.raises(ConfigError, match="one, other need each other"):
        run({"a": {"one": ["other"], "other": ["one"]}})


def test_a_pipeline_replaces_no_stage_that_a_live_run_holds(run, tmp_path, monkeypatch):
    monkeypatch.setattr(StandIn, "overwrites", True)
    monkeypatch.setattr(StandIn, "begin", lambda self: (self.folder / "begun").touch())
    (tmp_path / "a-sft").mkdir()
    with FileLock(tmp_path / "a-sft" / ".lock"):
        failures, ran, _ = run({"a": {"sft": []}})
    assert "a-sft is in use by another run" in failures["a", "sft"]
    assert not ran and not (tmp_path / "a-sft" / "begun").exists()


def test_it_is_said_from_which_step_a_stage_goes_on(run, tmp_path, capsys):
    for step in (2, 10):
        (tmp_path / "a-sft" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "a-sft" / f"checkpoint-{step}" / "complete.json").write_text("{}")
    (tmp_path / "a-sft" / "checkpoint-12").mkdir()  # cut off
    assert not run({"a": {"sft": []}})[0]
    assert "a sft  goes on from step 10" in capsys.readouterr().out
