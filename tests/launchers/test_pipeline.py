import json
import subprocess
import sys

import pytest
from conftest import ROOT

KEYS = {"win_rate", "win_rate_ci", "reward_mean", "gold_reward_mean", "kl_mean", "sampled_tokens", "train_seconds"}


def pipeline(*arguments):
    command = [sys.executable, "-m", "launchers.pipeline", "experiment=smoke", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_a_pipeline_ends_in_results_and_is_reused(tmp_path):
    here = [f"output_root={tmp_path}", "policies=[grpo]"]
    done = pipeline(*here)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "smoke" / "results.json").read_text())
    assert (results["baseline"], results["judge"]) == ("sft", "gold_reward")
    assert set(results["policies"]) == {"grpo"} and KEYS | {"peak_memory_mb"} <= set(results["policies"]["grpo"])
    assert results["policies"]["grpo"]["sampled_tokens"] > 0
    assert results["stages"]["reward"]["metrics"]["eval_accuracy"] > 0
    assert (tmp_path / "smoke" / "grpo" / "model.safetensors").exists()
    sample = json.loads((tmp_path / "smoke" / "samples-grpo" / "samples.jsonl").read_text().splitlines()[0])
    assert {"prompt", "completion", "reward", "gold_reward", "kl"} <= set(sample)

    again = pipeline(*here)
    stages = {line.split()[0]: line.split()[1] for line in again.stdout.splitlines() if "stages/" in line}
    assert len(stages) == 5 and set(stages.values()) == {"reused"}, again.stdout


@pytest.mark.slow
def test_only_what_a_change_reaches_runs_again(tmp_path):
    here = [f"output_root={tmp_path}", "policies=[grpo]"]
    assert pipeline(*here).returncode == 0
    changed = pipeline(*here, "stages.grpo.args.beta=0.1")
    stages = {line.split()[0]: line.split()[1] for line in changed.stdout.splitlines() if "stages/" in line}
    assert stages.pop("grpo") != "reused" and stages.pop("samples-grpo") != "reused"
    assert set(stages.values()) == {"reused"}, changed.stdout


def test_a_failing_stage_is_told_with_its_log(tmp_path):
    done = pipeline(
        f"output_root={tmp_path}", "policies=[]", "dataset.demonstrations=4", "stages.sft.args.max_length=0"
    )
    assert done.returncode == 1
    assert "stage sft failed" in done.stderr and "log.txt" in done.stderr
