import json

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.reward_names import resolve_names


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("accuracy_reward", "trl.rewards.accuracy_reward"),
        ("json.dumps", "json.dumps"),  # of a module that is there
        ("no_such_module.reward", None),
        ("Skywork/Skywork-Reward-V2-Qwen3-0.6B", None),
        ("outputs/demo/reward", None),
    ],
)
def test_names_of_functions_are_told_from_models(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create({"reward": {"functions": [name, None]}, "held_out": None})
    resolve_names(config)
    expected = name if path is None else {"_target_": "hydra.utils.get_method", "path": path}
    assert config.reward.functions == [expected, None]


def test_a_folder_of_that_name_is_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.dumps").mkdir()
    config = OmegaConf.create({"reward": {"functions": ["json.dumps"]}})
    resolve_names(config)
    assert config.reward.functions == ["json.dumps"]


def test_tools_and_environments_are_named_in_the_same_way():
    trainer = {"tools": ["json.dumps", {"_target_": "a.b"}], "environment_factory": "json.JSONDecoder"}
    config = OmegaConf.create({"reward": None, "trainer": trainer})
    resolve_names(config)
    built = instantiate(config.trainer.tools[0]), instantiate(config.trainer.environment_factory)
    assert built == (json.dumps, json.JSONDecoder) and config.trainer.tools[1] == {"_target_": "a.b"}
    several = OmegaConf.create({"trainer": {"environment_factory": {"a": "json.JSONDecoder"}}})
    resolve_names(several)
    assert instantiate(several.trainer.environment_factory) == {"a": json.JSONDecoder}
