"""The benchmark: cells at equal budget, which fail alone and are not repeated."""

import json

import pytest
from command_lines import in_process
from omegaconf import OmegaConf

from evaluation.comparison.benchmark import Benchmark
from evaluation.comparison.results import tuning_in_words
from evaluation.comparison.tuning import choice, value
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


TUNED = [
    "aa_control=null",
    "tune=learning_rate",
    "tune.seeds=[7]",
    "tune.tries=[{learning_rate: x1},{learning_rate: x4, beta: 0.5}]",
]


def test_the_default_tries_need_no_critic(composed, tmp_path):
    config = composed(
        "benchmark", f"output_root={tmp_path}", "algorithms=[dpo,grpo]", "seeds=[0]", "tune=learning_rate"
    )
    values = Benchmark(config, groups(composed)).tuning.values
    assert [each["learning_rate"] for each in values["dpo"]] == [
        config.stages.dpo.args.learning_rate * factor for factor in (0.25, 0.5, 1, 2, 4)
    ]
    assert all(set(each) == {"learning_rate"} for own in values.values() for each in own)


def test_every_algorithm_has_as_many_tries_on_seeds_of_their_own(composed, tmp_path):
    more = "tune.tries=[{learning_rate: x1},{learning_rate: x4, critic_learning_rate: 0.5}]"
    config = composed("benchmark", f"output_root={tmp_path}", "algorithms=[dpo,ppo]", "seeds=[0]", *TUNED, more)
    benchmark = Benchmark(config, groups(composed))
    tries = benchmark.tuning.benchmark
    assert list(tries.pipelines) == ["embedded-seed7"] and tries.folder == benchmark.folder / "tuning"
    configs = tries.pipelines["embedded-seed7"].configs
    rates = {name: configs[name].args.learning_rate for name in tries.rows}
    assert rates == {"dpo_try0": 4e-4, "dpo_try1": 1.6e-3, "ppo_try0": 4e-4, "ppo_try1": 1.6e-3}
    assert configs["ppo_try1"].args.critic_learning_rate == 0.5
    assert "critic_learning_rate" not in benchmark.tuning.values["dpo"][1]

    scores = {"dpo_try0": 0.7, "dpo_try1": 0.6, "ppo_try1": 0.8}  # a seed of ppo_try0 failed
    means = {
        name: {"win_rate": {"mean": mean, "spread": 0.01, "interval": [mean, mean]}} for name, mean in scores.items()
    }
    tries.run = lambda: {"datasets": ["embedded"], "by_dataset": {"embedded": {"means": means}}, "cells": []}
    benchmark.chosen = benchmark.tuning.run()
    chosen = benchmark.chosen["embedded"]
    assert (chosen["dpo"]["chosen"], chosen["ppo"]["chosen"]) == (0, 1)
    assert chosen["ppo"]["tries"][0]["win_rate"] is None
    assert chosen["dpo"]["at_the_end"] == ["learning_rate"]
    compared = benchmark._pipelines()["embedded-seed0"].configs
    assert (compared["dpo"].args.learning_rate, compared["ppo"].args.learning_rate) == (4e-4, 1.6e-3)
    text = tuning_in_words({"by_dataset": benchmark.chosen, "metric": "win_rate", "within": 1, "seeds": [7]}, [0])
    assert (
        "of 2 tries for each algorithm, the one of lowest KL within 1 standard errors of the best by win_rate on"
        in text
        and "try further" in text
    )


@pytest.mark.parametrize(
    "mistake, told",
    [
        (
            "tune.seeds=[0,5]",
            r"tune.seeds=\[0, 5\]: settings would be chosen on seeds that are compared \(0 of seeds\)",
        ),
        ("tune.tries=[{lerning_rate: x2}]", "none of dpo has an argument lerning_rate"),
        ("stages.dpo.args.learning_rate=1e-3", "learning_rate=0.004 of dpo has no effect, as the command line sets"),
    ],
)
def test_tuning_that_would_choose_nothing_is_refused(composed, tmp_path, mistake, told):
    overrides = (f"output_root={tmp_path}", "algorithms=[dpo]", "seeds=[0]", *TUNED, mistake)
    with pytest.raises(ConfigError, match=told):
        Benchmark(composed("benchmark", *overrides), groups(composed))


@pytest.mark.parametrize(
    "within, kl, chosen",
    [
        (1, [0.5, 2.0, 9.0, 1.0], 1),  # the third is best, the second not told from it, the others are
        (0, [0.5, 2.0, 9.0, 1.0], 2),
        (3, [0.5, 2.0, 9.0, 1.0], 0),
        (1, [0.5, 2.0, None, 1.0], 2),  # drift is not known of all
    ],
)
def test_the_try_of_lowest_kl_is_chosen_of_those_not_told_from_the_best(within, kl, chosen):
    scores = [{"mean": mean, "spread": 0.02} for mean in (0.8, 0.84, 0.85, 0.5)]
    assert choice([*scores, None], [k and {"mean": k} for k in kl] + [None], within) == chosen


def test_a_value_is_a_number_or_a_factor_of_the_algorithms_own():
    assert [value("beta", given, 0.1) for given in (0.5, "0.5", "x3")] == [0.5, 0.5, 0.3]
    with pytest.raises(ConfigError, match="beta=fast is no value: give a number, or a factor such as x2"):
        value("beta", "fast", 0.1)


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
@pytest.mark.usefixtures("forked")
def test_a_failed_cell_does_not_stop_the_others_nothing_finished_is_repeated_and_settings_are_chosen(tmp_path):
    def run(*more):
        words = ["experiment=smoke", f"output_root={tmp_path}", "algorithms=[dpo,grpo]", "seeds=[0]", "reward=gold"]
        words += ["aa_control=null", "budget.sampled_tokens=400", "samples.max_prompts=16", "samples.max_new_tokens=24"]
        done = in_process("launchers.benchmark", *words, *more)
        assert done.returncode == 0, done.stderr[-3000:]
        results = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
        how = {tuple(line.split()[:2]): line.split()[2] for line in done.stdout.splitlines() if "stages/" in line}
        return {cell["algorithm"]: cell for cell in results["cells"]}, how, results, done.stdout

    cells, how, results, _ = run("+stages.dpo.model.attn_implementation=nope")
    assert cells["dpo"]["status"] == "failed" and "stage dpo failed" in cells["dpo"]["error"]
    assert cells["grpo"]["status"] == "finished" and 400 <= cells["grpo"]["sampled_tokens"] < 400 + 8 * 24
    assert cells["grpo"]["win_rate"] is not None and cells["grpo"]["phases"]["generate"] > 0
    seed = "embedded-seed0"
    assert how[seed, "dpo"] == "FAILED" and "dpo on embedded, seed 0, failed." in results["in_words"]
    assert results["tuning"] is None

    # GRPO has no such argument: its cell stays as it is, and its try is GRPO on another seed.
    tune = ["tune=learning_rate", "tune.seeds=[7]", "tune.tries=[{label_smoothing: 0.1}]"]
    cells, how, results, printed = run(*tune)
    assert {how[seed, name] for name in ("sft", "grpo", "samples-sft", "samples-grpo")} == {"reused"}, how
    assert how[seed, "dpo"] != "reused" and cells["dpo"]["status"] == "finished"
    assert {row["key"] for row in results["by_dataset"]["embedded"]["differences"]} >= {"win_rate", "gold_reward", "kl"}
    chosen = results["tuning"]["by_dataset"]["embedded"]
    assert all(row["chosen"] == 0 and row["tries"][0]["win_rate"]["mean"] is not None for row in chosen.values())
    assert chosen["dpo"]["tries"][0]["args"] == {"label_smoothing": 0.1} and chosen["grpo"]["tries"][0]["args"] == {}
    trained = OmegaConf.load(tmp_path / "benchmark" / seed / "dpo" / "config.yaml")
    assert trained.args.label_smoothing == 0.1
    assert {cell["seed"] for cell in results["cells"]} == {0} and "settings chosen on seeds 7" in printed
