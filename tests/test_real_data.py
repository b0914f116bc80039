"""The same pipeline on real input: HH and a real pretrained model end to end, DPO and reward on the other sources."""

import json

import pytest
from command_lines import in_process

from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.stages.train import train

pytestmark = pytest.mark.slow
FOLDERS = {"hh": "hh_rlhf", "oasst": "oasst", "ultrafeedback": "ultrafeedback_binarized", "tldr": "tldr"}


def on(dataset, shared, tmp_path):
    """Overrides of a run on 32 real rows with a real pretrained model."""
    return [
        *(f"output_root={tmp_path}", f"dataset={dataset}", f"dataset.path={shared / 'data' / FOLDERS[dataset]}"),
        *("dataset.max_samples=32", "model=stories260k"),
        f"model.model_name_or_path={shared / 'models' / 'stories260K'}",
    ]


@pytest.mark.usefixtures("forked")
def test_the_whole_pipeline_on_hh(shared, tmp_path):
    limits = ["dataset.max_tokens=256", "dataset.max_prompt_tokens=160", "samples.max_prompts=16"]
    online = ("grpo_vi", "ppo")  # the benchmark below trains GRPO on the same prompts
    steps = [f"stages.{stage}.args.max_steps=3" for stage in ("sft", "reward", "dpo", *online)]
    short = [f"stages.{stage}.args.max_completion_length=24" for stage in online]
    short.append("samples.max_new_tokens=24")
    words = [f"policies=[dpo,{','.join(online)}]", *limits, *steps, *short]
    done = in_process("launchers.pipeline", *on("hh", shared, tmp_path), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "hh-stories260k" / "results.json").read_text())
    assert set(results["policies"]) == {"dpo", *online} and results["judge"] == "reward"
    for policy in results["policies"].values():
        assert policy["prompts"] == 16 and policy["gold_reward_mean"] is None
        low, high = policy["win_rate_ci"]
        assert 0 <= low <= policy["win_rate"] <= high <= 1
    log = (tmp_path / "hh-stories260k" / "sft" / "log.txt").read_text()
    assert "harmless-base/test.jsonl.gz:" in log and "bad:" in log  # malformed rows are told with file and line


@pytest.mark.parametrize("algorithm, dataset", [("reward", "oasst"), ("dpo", "tldr")])
def test_preferences_of_the_other_sources_train(algorithm, dataset, composed, shared, tmp_path):
    args = [f"++args.{size}" for size in ("max_steps=2", "per_device_train_batch_size=4", "logging_steps=1")]
    train(composed("train", f"algorithm={algorithm}", *args, "dataset.max_tokens=600", *on(dataset, shared, tmp_path)))
    (folder,) = tmp_path.glob(f"stages/{algorithm}-*")
    losses = [row["loss"] for row in map(json.loads, (folder / "metrics.jsonl").open()) if "loss" in row]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)


CUT = ["dataset.max_samples=100", "dataset.max_tokens=null", "dataset.max_prompt_tokens=64"]
CUT += ["++args.max_length=128", "++args.learning_rate=1e-4"]
HH = ["dataset.max_samples=300", "dataset.max_tokens=256", "++args.learning_rate=1e-3"]


@pytest.mark.parametrize(
    ("algorithm", "dataset", "words", "measure", "start"),
    [
        ("reward", "hh", HH, "eval_accuracy", 0.5),
        ("dpo", "ultrafeedback", CUT, "eval_rewards/margins", 0.0),
    ],
)
def test_preferences_that_people_gave_are_learnt(algorithm, dataset, words, measure, start, composed, shared, tmp_path):
    """On held-out pairs, where `start` is expected of chance; more seeds and intervals are in RESULTS.md."""
    sizes = ["per_device_train_batch_size=8", "num_train_epochs=2", "warmup_steps=10", "lr_scheduler_type=cosine"]
    words = [*words, "evaluate=true", "shares={reward: 0.6, evaluation: 0.4}", *(f"++args.{size}" for size in sizes)]
    real = [word for word in on(dataset, shared, tmp_path) if "max_samples" not in word]
    config = composed("train", f"algorithm={algorithm}", "experiment=prototype", *real, *words)
    assert train(config)["metrics"][measure] > start + 0.03


@pytest.mark.usefixtures("forked")
def test_the_benchmark_compares_on_two_data_sets(shared, tmp_path):
    hh = f"dataset:{{path:{shared / 'data' / 'hh_rlhf'},max_samples:32,max_tokens:256,max_prompt_tokens:160}}"
    hh += f",model:{{model_name_or_path:{shared / 'models' / 'stories260K'},chat_template:plain}}"
    words = ["experiment=smoke", f"output_root={tmp_path}", "datasets=[embedded,hh]", "algorithms=[grpo]", "seeds=[0]"]
    words += ["aa_control=null", "budget.sampled_tokens=null", "budget.gradient_steps=3"]
    words += ["samples.max_prompts=16", "samples.max_new_tokens=24", f"+settings.hh={{{hh}}}"]
    done = in_process("launchers.benchmark", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
    assert results["judge"] == "gold_reward (embedded), reward (hh)"
    assert {(cell["dataset"], cell["algorithm"], cell["status"]) for cell in results["cells"]} == {
        (dataset, algorithm, "finished") for dataset in ("embedded", "hh") for algorithm in ("grpo",)
    }
    assert all(cell["sampled_tokens"] > 0 for cell in results["cells"])


def test_right_answers_are_the_reward_of_gsm8k(composed, shared, tmp_path):
    pytest.importorskip("math_verify")
    where = ["dataset=gsm8k", f"dataset.path={shared / 'data/gsm8k'}", f"output_root={tmp_path}"]
    sizes = ["max_steps=2", "per_device_train_batch_size=8", "num_generations=4", "max_completion_length=8"]
    record = train(
        composed("train", "algorithm=grpo", "reward=accuracy", *where, *(f"++args.{size}" for size in sizes))
    )
    assert record["steps"] == 2 and record["sampled_tokens"] > 0
    rows = read_metrics(next(tmp_path.glob("stages/grpo-*/metrics.jsonl")))
    assert all("rewards/accuracy/mean" in row for row in rows if "loss" in row)
