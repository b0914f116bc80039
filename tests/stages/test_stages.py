import json

import pytest
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages import identity
from rlhf_trl_ext.stages.identity import digest, fingerprint
from rlhf_trl_ext.stages.sources import source
from rlhf_trl_ext.stages.stage import Stage


def a_stage(tmp_path, **changes):
    base = {
        "kind": "train",
        "name": "sft",
        "output_root": str(tmp_path),
        "output_dir": None,
        "seed": 0,
        "args": {"learning_rate": 1e-3},
    }
    return Stage(OmegaConf.create({**base, **changes}))


def test_the_folder_is_a_function_of_what_decides_the_result(tmp_path):
    assert a_stage(tmp_path).folder == a_stage(tmp_path).folder
    assert a_stage(tmp_path).folder != a_stage(tmp_path, seed=1).folder
    assert a_stage(tmp_path).folder != a_stage(tmp_path, args={"learning_rate": 2e-3}).folder


def test_where_and_how_it_is_reported_does_not_decide(tmp_path):
    reported = {"learning_rate": 1e-3, "report_to": "wandb", "run_name": "mine"}
    assert a_stage(tmp_path).fingerprint == a_stage(tmp_path, args=reported).fingerprint
    assert a_stage(tmp_path).fingerprint == a_stage(tmp_path, output_dir="elsewhere", overwrite=True).fingerprint


def test_packages_and_code_decide(tmp_path, monkeypatch):
    before = a_stage(tmp_path).fingerprint
    monkeypatch.setattr(identity, "versions", lambda: {"torch": "0"})
    assert a_stage(tmp_path).fingerprint != before
    monkeypatch.undo()
    monkeypatch.setattr(identity, "source", lambda *modules, **options: {"edited": ""})
    assert a_stage(tmp_path).fingerprint != before


def test_code_is_followed_through_imports():
    # The generator imports its words and its gold reward: an edit of either makes other data.
    assert {"rlhf_trl_ext.data.embedded_words", "rlhf_trl_ext.rewards.gold"} <= set(
        source("rlhf_trl_ext.data.embedded")
    )
    assert set(source("torch.nn")) == set()


def test_local_data_decides_by_its_contents_also_in_subfolders(tmp_path):
    data = tmp_path / "data" / "split" / "rows.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text('{"a": 1}\n')
    before = digest({"path": str(tmp_path / "data")})
    data.touch()
    assert digest({"path": str(tmp_path / "data")}) == before
    data.write_text('{"a": 2}\n')
    assert digest({"path": str(tmp_path / "data")}) != before


def test_a_finished_stage_is_identified_by_its_fingerprint_not_by_file_times(tmp_path):
    (tmp_path / "stage.json").write_text('{"fingerprint": "aa"}')
    before = digest({"path": str(tmp_path)})
    (tmp_path / "more.txt").write_text("x")
    assert digest({"path": str(tmp_path)}) == before


def test_a_stage_is_finished_wholly_or_not_at_all(tmp_path):
    stage = a_stage(tmp_path)
    assert stage.result is None
    stage.begin()
    (stage.folder / "stage.json.partial").write_text('{"torn')
    assert stage.result is None
    stage.finish({"steps": 3})
    assert stage.result["steps"] == 3


def test_a_folder_that_holds_another_run_is_refused(tmp_path):
    stage = a_stage(tmp_path, output_dir=str(tmp_path / "mine"))
    stage.begin()
    stage.finish({})
    with pytest.raises(ConfigError, match=r"holds another run \(it differs in seed=1 \(recorded: 0\)\)"):
        _ = a_stage(tmp_path, output_dir=str(tmp_path / "mine"), seed=1).result


def test_an_unfinished_run_of_another_configuration_is_not_taken_over(tmp_path):
    mine = {"output_dir": str(tmp_path / "mine")}
    a_stage(tmp_path, **mine, model={"model_name_or_path": "first"}).begin()
    other = a_stage(tmp_path, **mine, args={"learning_rate": 1e-7, "beta": 0.9}, model={"model_name_or_path": "second"})
    told = (
        r"args.beta=0.9 \(recorded: None\), args.learning_rate=1e-07 \(recorded: 0.001\), "
        r"model.model_name_or_path=second \(recorded: first\)"
    )
    with pytest.raises(ConfigError, match=told):
        other.begin()
    assert a_stage(tmp_path, **mine, model={"model_name_or_path": "first"}).result is None


def test_a_folder_of_somebody_else_is_not_written_into(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"files that no run of this project wrote there \(thesis.tex\)"):
        a_stage(tmp_path, output_dir=str(tmp_path / "theirs")).begin()


def test_what_is_no_number_is_null_in_the_record(tmp_path):
    made = a_stage(tmp_path)
    made.begin()
    made.finish({"metrics": {"eval_loss": float("nan")}})
    recorded = json.loads((made.folder / "stage.json").read_text(), parse_constant=pytest.fail)
    assert recorded["metrics"] == {"eval_loss": None}


def test_a_damaged_result_is_not_reused(tmp_path):
    stage = a_stage(tmp_path)
    stage.begin()
    (stage.folder / "model.safetensors").write_bytes(b"weights")
    stage.finish({"steps": 3})
    user = {"model": {"model_name_or_path": str(stage.folder)}}
    assert stage.result["steps"] == 3 and a_stage(tmp_path, **user).fingerprint
    (stage.folder / "model.safetensors").write_bytes(b"wei")
    with pytest.raises(ConfigError, match=r"model.safetensors is damaged: 3 bytes of 7.* run again to make it anew"):
        _ = stage.result
    with pytest.raises(ConfigError, match=r"model.model_name_or_path=.*damaged.* run its stage again"):
        a_stage(tmp_path, **user)
    (stage.folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model.safetensors is missing"):
        _ = stage.result


def test_the_written_configuration_gives_the_same_fingerprint(tmp_path):
    stage = a_stage(tmp_path, args={"learning_rate": 1e-6, "betas": [0.9, 0.98], "steps": "${seed}"})
    stage.begin()
    written = OmegaConf.load(stage.folder / "config.yaml")
    del written["defaults"]
    assert fingerprint(written) == stage.fingerprint
    versions = json.loads((stage.folder / "versions.json").read_text())
    assert versions["trl"].startswith("1.16.") and "git_commit" in versions


def test_a_beginning_that_another_pipeline_is_writing_is_nobody_elses(composed, tmp_path):
    config = composed("train", f"output_root={tmp_path}")
    stage = Stage(config)
    stage.folder.mkdir(parents=True)
    (stage.folder / "versions.json.4711.partial").write_text("{")
    stage.begin()
    assert (stage.folder / "versions.json").exists()
