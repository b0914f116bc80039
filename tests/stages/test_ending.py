"""What a run says last."""

import json
from pathlib import Path

from rlhf_trl_ext.stages.ending import ending, pipeline_ending


def lines_of(tmp_path, architecture, **metrics):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return ending({"name": "x", "steps": 4, "train_seconds": 2.0, "metrics": metrics, "folder": str(tmp_path)})


def test_metrics_that_are_no_numbers_are_left_out(tmp_path):
    record = {"name": "x", "folder": str(tmp_path), "steps": 4, "train_seconds": 2.0, "metrics": {"eval_loss": None}}
    assert ending(record)[0] == "x: 4 steps in 2.0 s"


def test_commands_are_quoted_where_a_shell_would_part_them(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    record = {"name": "x", "folder": str(folder), "steps": 4, "train_seconds": 2.0}
    assert ending(record)[2] == f"next: python -m launchers.chat 'policy={folder}'"


def test_a_stage_says_where_its_model_is_how_it_did_and_what_comes_next(tmp_path):
    lines = lines_of(tmp_path, "LlamaForCausalLM", eval_loss=0.51234, eval_runtime=3)
    assert lines[0] == "x: 4 steps in 2.0 s, loss 0.5123 on held-out rows" and lines[1] == f"model: {tmp_path}"
    assert lines[2] == f"next: python -m launchers.chat policy={tmp_path}"
    assert lines[3:] == [f"      python -m launchers.{verb} policy={tmp_path}" for verb in ("generate", "serve")]
    lines = lines_of(tmp_path, "LlamaForSequenceClassification", eval_accuracy=0.75)
    assert "accuracy 0.75" in lines[0] and f"reward.path={tmp_path}" in lines[2]


def test_adapters_that_were_not_merged_are_named(tmp_path):
    record = {"name": "x", "steps": 4, "train_seconds": 2.0, "metrics": {}, "folder": str(tmp_path)}
    lines = ending(record)
    assert f"policy={tmp_path}/adapter" in lines[2] and lines[1] == f"model: {tmp_path}/adapter"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}')
    assert f"reward.path={tmp_path}/adapter" in ending(record)[2]


def test_without_held_out_rows_a_stage_tells_the_end_of_its_log(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5, "reward": 0.25}\n')
    (line, *_) = lines_of(tmp_path, "LlamaForCausalLM")
    assert "reward 0.25, loss 1.5 at the end of training (evaluate=true" in line


def test_a_pipeline_names_the_policy_that_won_most():
    rows = {name: {"win_rate": rate, "in_words": f"{name} wins."} for name, rate in (("dpo", 0.6), ("grpo", 0.7))}
    lines = pipeline_ending({"policies": rows}, Path("out"))
    assert lines[1] == "grpo wins." and "policy=out/grpo" in lines[-1]
    assert pipeline_ending({"policies": {}}, Path("out")) == ["written to out/results.json, models to out/<stage>"]
