import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.stages import train as training
from rlhf_trl_ext.stages.train import train

REWARD = "++trainer.reward_funcs=[{_target_: conftest.DistinctCharacters}]"
ONLINE = [REWARD, "++args.num_generations=4", "++args.max_completion_length=8"]


def run(composed, few, tmp_path, algorithm, *more):
    return train(composed("train", f"algorithm={algorithm}", f"output_root={tmp_path}", *few, *more))


def weights(folder):
    return load_file(folder / "model.safetensors")


def folder_of(tmp_path, name):
    (folder,) = tmp_path.glob(f"stages/{name}-*")
    return folder


@pytest.mark.parametrize(
    "algorithm, more", [("sft", []), ("reward", []), ("dpo", []), ("kto", []), ("grpo", ONLINE), ("rloo", ONLINE)]
)
def test_every_algorithm_trains(algorithm, more, composed, few, tmp_path):
    record = run(composed, few, tmp_path, algorithm, *more)
    folder = folder_of(tmp_path, algorithm)
    (built,) = tmp_path.glob("models/*")
    before, after = weights(built), weights(folder)
    assert any(not torch.equal(before[key], after[key]) for key in before if key in after)
    assert record["world_size"] == 1 and record["steps"] == 4
    rows = read_metrics(folder / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses)
    assert (record["sampled_tokens"] > 0) == bool(more)
    loader = AutoModelForSequenceClassification if algorithm == "reward" else AutoModelForCausalLM
    _, told = loader.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]


def test_the_reward_model_is_evaluated_on_held_out_pairs(composed, few, tmp_path):
    record = run(composed, few, tmp_path, "reward")
    assert 0 <= record["metrics"]["eval_accuracy"] <= 1


def test_a_finished_stage_is_reused(composed, few, tmp_path, monkeypatch):
    first = run(composed, few, tmp_path, "sft")
    monkeypatch.setattr(training, "_run", None)  # a second training would call it
    assert run(composed, few, tmp_path, "sft") == first


@pytest.mark.parametrize(
    "algorithm, more",
    [
        pytest.param("sft", [], marks=pytest.mark.slow),
        pytest.param("dpo", [], marks=pytest.mark.slow),
        ("grpo", ONLINE),
    ],
)
def test_an_interrupted_stage_resumes_to_the_same_weights_and_metrics(
    algorithm, more, composed, few, tmp_path, cut_off
):
    saving = [*more, "++args.save_steps=2"]
    run(composed, few, tmp_path / "whole", algorithm, *saving)
    with cut_off(3):
        run(composed, few, tmp_path / "cut", algorithm, *saving)
    run(composed, few, tmp_path / "cut", algorithm, *saving)
    whole, cut = folder_of(tmp_path / "whole", algorithm), folder_of(tmp_path / "cut", algorithm)
    ours, theirs = weights(cut), weights(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    losses = [[row["loss"] for row in read_metrics(f / "metrics.jsonl") if "loss" in row] for f in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 4


CRITIC = [*ONLINE, "reward.path=null"]
SLOW = [("sft", []), ("kto", []), ("rloo", ONLINE), ("ppo", CRITIC), ("grpo_offpolicy", ONLINE), ("grpo_vi", CRITIC)]


@pytest.mark.parametrize(
    "algorithm, more",
    [("dpo", []), ("reward", []), ("grpo", ONLINE), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_lora_trains_adapters_and_saves_a_merged_model(algorithm, more, composed, few, tmp_path):
    run(composed, few, tmp_path, algorithm, "++model.use_peft=true", *more)
    folder = folder_of(tmp_path, algorithm)
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    (built,) = tmp_path.glob("models/*")
    before, after = weights(built), weights(folder)
    changed = {key for key in before if key in after and not torch.equal(before[key], after[key])}
    assert changed and all("q_proj" in key or "v_proj" in key for key in changed)
    loader = AutoModelForSequenceClassification if algorithm == "reward" else AutoModelForCausalLM
    _, told = loader.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]


def test_merging_is_an_option(composed, few, tmp_path):
    run(composed, few, tmp_path, "dpo", "++model.use_peft=true", "++model.merge_adapter=false", "++args.max_steps=1")
    folder = folder_of(tmp_path, "dpo")
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()


def test_reporting_works_offline(composed, few, tmp_path, offline_wandb):
    run(composed, few, tmp_path, "sft", "++args.report_to=[wandb,tensorboard]")
    assert list(tmp_path.glob("wandb/offline-run-*"))
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_run_directory_holds_configuration_versions_and_metrics(composed, few, tmp_path):
    run(composed, few, tmp_path, "sft")
    folder = folder_of(tmp_path, "sft")
    assert {"config.yaml", "versions.json", "metrics.jsonl", "stage.json"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "versions.json").read_text())["torch"]


def test_the_model_card_names_base_data_settings_and_numbers(composed, few, tmp_path, tiny):
    record = run(composed, few, tmp_path, "reward", f"model.model_name_or_path={tiny}", "seed=3")
    card = (folder_of(tmp_path, "reward") / "README.md").read_text()
    for line in (
        f"| base | `{tiny}` |",
        "| data | `Embedded`, 64 rows of preferences |",
        "| algorithm | `algorithm=reward`, seed 3; learning_rate 0.001, per_device_train_batch_size 8",
        f"eval_accuracy {record['metrics']['eval_accuracy']:.4g}",
        f'model="{folder_of(tmp_path, "reward")}"',
    ):
        assert line in card
    assert "None" not in card.split("### Framework versions")[0] and card.startswith("---\n")
