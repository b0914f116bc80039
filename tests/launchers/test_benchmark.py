"""The benchmark: cells at equal budget, which fail alone and are not repeated."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from evaluation.comparison.benchmark import Benchmark
from rlhf_trl_ext.configuration.checks import ConfigError


def groups(composed):
    def group(name, choice):
        if name == "algorithm":
            return composed(f"algorithm/{choice}")
        return composed("pipeline", f"{name}={choice}")[name]

    return group


def test_cells_share_what_comes_before_them_and_differ_in_what_they_compare(composed, tmp_path):
    config = composed("benchmark", f"output_root={tmp_path}", "seeds=[0,1]", "algorithms=[dpo,grpo]")
    benchmark = Benchmark(config, groups(composed))
    assert list(benchmark.pipelines) == ["embedded-seed0", "embedded-seed1"]
    pipeline = benchmark.pipelines["embedded-seed1"]
    assert pipeline.sampled == ["sft", "dpo", "grpo", "grpo_again"] and {"sft", "reward"} < set(pipeline.configs)
    grpo, again, dpo = (
        OmegaConf.to_container(pipeline.configs[n], resolve=True) for n in ("grpo", "grpo_again", "dpo")
    )
    assert grpo["budget"] == again["budget"] == {"sampled_tokens": 24000} and not dpo.get("budget")
    assert (grpo["args"]["seed"], again["args"]["seed"]) == (1, 1001) and grpo["dataset"] == again["dataset"]
    assert grpo["dataset"]["seed"] == 1 and dpo["args"]["max_steps"] == 60
    # Watched by gold, but the last policy is the one compared.
    assert grpo["held_out"]["functions"] and grpo["held_out"]["args"]["load_best_model_at_end"] is False


@pytest.mark.parametrize(
    "mistake, told",
    [
        ("aa_control=ppo", "aa_control=ppo: allowed are null, dpo, grpo"),
        ("seeds=[0,0]", r"seeds=\[0, 0\]: name at least one, and none twice"),
        ("settings={hh: {samples: {max_new_tokens: 9}}}", "settings.hh: allowed are embedded, as in datasets"),
        ("budget.seconds=5", "give one of sampled_tokens, gradient_steps and seconds"),
    ],
)
def test_mistakes_are_told_first(composed, tmp_path, mistake, told):
    overrides = (f"output_root={tmp_path}", "algorithms=[dpo,grpo]", mistake)
    with pytest.raises(ConfigError, match=told):
        Benchmark(composed("benchmark", *overrides), groups(composed))


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_others_and_nothing_finished_is_repeated(tmp_path):
    def run(*more):
        command = [sys.executable, "-m", "launchers.benchmark", "experiment=smoke", f"output_root={tmp_path}"]
        command += ["algorithms=[dpo,grpo]", "seeds=[0]", "aa_control=null", "budget.sampled_tokens=400", *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
        assert done.returncode == 0, done.stderr[-3000:]
        results = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
        how = {line.split()[1]: line.split()[2] for line in done.stdout.splitlines() if "stages/" in line}
        return {cell["algorithm"]: cell for cell in results["cells"]}, how, results

    cells, how, results = run("+stages.dpo.model.attn_implementation=nope")
    assert cells["dpo"]["status"] == "failed" and "stage dpo failed" in cells["dpo"]["error"]
    assert cells["grpo"]["status"] == "finished" and 400 <= cells["grpo"]["sampled_tokens"] < 400 + 8 * 24
    assert cells["grpo"]["win_rate"] is not None and cells["grpo"]["phases"]["generate"] > 0
    assert how["dpo"] == "FAILED" and "dpo on embedded, seed 0, failed." in results["in_words"]

    cells, how, results = run()
    assert {how[name] for name in ("sft", "reward", "grpo", "samples-grpo")} == {"reused"}, how
    assert how["dpo"] != "reused" and cells["dpo"]["status"] == "finished"
    assert {row["key"] for row in results["by_dataset"]["embedded"]["differences"]} >= {"win_rate", "gold_reward", "kl"}
