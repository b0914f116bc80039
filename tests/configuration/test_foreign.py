"""Somebody else's stage folder: what it may not decide."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.foreign import folder_of, hydra_settings, own_folder

HOSTILE = {
    "config.yaml": "hydra: {callbacks: {x: {_target_: os.system}}}",
    "group/a.yaml": "# @package hydra.callbacks\nx: {_target_: os.system}",
    "hydra/callbacks/a.yaml": "x: 1",
    "b.yaml": "hydra.job_logging: {}",
    "c.yaml": "defaults: [{callbacks@hydra.callbacks: evil}]",
    "d.yaml": "defaults: [../evil]",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"], ["-cp", "{}"]])
def test_a_folder_cannot_set_hydra_up(name, way, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(HOSTILE[name])
    (result,) = hydra_settings([word.format(tmp_path) for word in way])
    assert result.startswith(f"{tmp_path / name}: ") and "run code before anything is checked" in result


def test_a_stage_s_own_folder_passes(tmp_path):
    (tmp_path / "config.yaml").write_text("defaults: [hydra_settings, _self_]\nseed: 0\n")
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "mine.yaml").write_text("# @package _global_\ndefaults: [_base, _self_]\nname: mine\n")
    assert hydra_settings(["--config-dir", str(tmp_path), "--config-name", "config"]) == []


def test_a_copied_folder_writes_to_itself_and_overwrites_nothing(tmp_path):
    config = OmegaConf.create({"output_dir": "/home/somebody", "overwrite": True})
    own_folder(config, tmp_path, ["seed=1"])
    assert config == {"output_dir": str(tmp_path), "overwrite": False}
    given = OmegaConf.create({"output_dir": "mine", "overwrite": True})
    own_folder(given, tmp_path, ["output_dir=mine", "overwrite=true"])
    assert given == {"output_dir": "mine", "overwrite": True}


def test_the_folder_is_that_of_the_launcher_s_configuration(tmp_path):
    sources = [SimpleNamespace(provider="main", path="conf"), SimpleNamespace(provider="command-line", path=tmp_path)]
    assert folder_of("config", sources) is None
    (tmp_path / "config.yaml").touch()
    assert folder_of("config", sources) == tmp_path
