"""A file that lies where a launcher would write: its own is replaced, anyone else's is left and named."""

import json

import pytest
from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.outputs import EVALUATION, GENERATOR, refusals

OWN = {
    "answer": {"prompt": [], "completion": "x"},
    "capability": {"task": {"baseline": {"value": 0.5}}},
    "data": {"rows": 1, "columns": [], "lengths": {}},
    "evaluate": {"judge": "gold", "policies": {}},
    "report": f"<html>{GENERATOR}",
}


@pytest.mark.parametrize("launcher", OWN)
def test_a_foreign_file_is_not_replaced_and_an_own_one_is(launcher, tmp_path):
    path = tmp_path / "out.json"
    config = OmegaConf.create({"output": str(path), "output_root": str(tmp_path), "results": None})
    for content in (None, "", OWN[launcher] if launcher == "report" else json.dumps(OWN[launcher])):
        if content is not None:
            path.write_text(content)
        assert refusals(config, launcher) == []
    for content in ("my thesis", '{"thesis": 1}'):
        path.write_text(content)
        result = refusals(config, launcher)
        if content == "my thesis" and launcher in ("evaluate", "capability"):  # no JSON at all: what a crash left
            assert result == []
        else:
            assert result[0].startswith(f"output={path}: it is there already and holds no ")


def test_the_report_beside_an_evaluation_is_nobody_else_s(tmp_path):
    config = OmegaConf.create({"output": None, "output_root": str(tmp_path), "results": None})
    (tmp_path / "evaluation.md").write_text("# My notes")
    assert refusals(config, "evaluate")[0].startswith(f"output={tmp_path / 'evaluation.md'}: it is there")
    (tmp_path / "evaluation.md").write_text(EVALUATION + "sft")
    assert refusals(config, "evaluate") == []
    config.output = str(tmp_path / "evaluation.md")  # the report would replace the results
    assert refusals(config, "evaluate")


@pytest.mark.parametrize(
    ("launcher", "name", "other"),
    [
        ("pipeline", "results.json", {"dense": {"grpo": {}}, "sparse": {}}),
        ("landscapes", "results.json", {"policies": {}, "stages": {}, "judge": "gold"}),
        ("benchmark", "benchmark.json", {"mine": 1}),
    ],
)
def test_a_folder_with_results_of_another_kind_keeps_them(launcher, name, other, tmp_path):
    config = OmegaConf.create({"output_dir": str(tmp_path)})
    assert refusals(config, launcher) == []
    (tmp_path / name).write_text(json.dumps(other))
    assert refusals(config, launcher)[0].startswith(f"output_dir={tmp_path / name}: it is there already")
