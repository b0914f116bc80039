"""What a run says last."""

import json
from pathlib import Path

from rlhf_trl_ext.stages.ending import ending, pipeline_ending


def lines_of(tmp_path, architecture, **metrics):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return ending({"name": "x", "steps": 4, "train_seconds": 2.0, "metrics": metrics, "folder": str(tmp_path)})


def test_a_stage_says_where_its_model_is_how_it_did_and_what_comes_next(tmp_path):
    lines = lines_of(tmp_path, "LlamaForCausalLM", eval_loss=0.51234, eval_runtime=3)
    assert lines[0] == "x: 4 steps in 2.0 s, loss 0.5123 on held-out rows" and lines[1] == f"model: {tmp_path}"
    assert lines[2].startswith(f"next: python -m launchers.chat policy={tmp_path}")
    lines = lines_of(tmp_path, "LlamaForSequenceClassification", eval_accuracy=0.75)
    assert "accuracy 0.75" in lines[0] and f"reward.path={tmp_path}" in lines[2]


def test_adapters_that_were_not_merged_are_named(tmp_path):
    record = {"name": "x", "steps": 4, "train_seconds": 2.0, "metrics": {}, "folder": str(tmp_path)}
    assert f"policy={tmp_path}/adapter" in ending(record)[2]


def test_a_pipeline_names_the_policy_that_won_most():
    rows = {name: {"win_rate": rate, "in_words": f"{name} wins."} for name, rate in (("dpo", 0.6), ("grpo", 0.7))}
    lines = pipeline_ending({"policies": rows}, Path("out"))
    assert lines[1] == "grpo wins." and "policy=out/grpo" in lines[-1]
    assert pipeline_ending({"policies": {}}, Path("out")) == ["written to out/results.json, models to out/<stage>"]
