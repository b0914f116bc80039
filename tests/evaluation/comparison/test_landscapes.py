"""Expected values are worked out by hand in the comments."""

import itertools
import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from evaluation.comparison.landscapes import rewards
from evaluation.comparison.landscapes.benchmark import Benchmark
from evaluation.comparison.landscapes.cell import train
from evaluation.comparison.landscapes.summary import (
    against,
    difference,
    final_rewards,
    interval,
    ratio,
    share,
    summarise,
    tokens_to,
)
from rlhf_trl_ext.configuration.checks import ConfigError

SHORT = ("iterations.dense=20", "selection_seeds=[100]", "seeds=[0,1]", "learning_rates=[1e-9,4e-3,1.0]")


@pytest.fixture
def benchmark(tmp_path):
    """`benchmark(*overrides)`: the benchmark as the launcher makes it."""

    def make(*overrides):
        from conftest import ROOT

        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("landscapes", overrides=[f"output_dir={tmp_path}", *overrides])
            return Benchmark(config, lambda name: compose(f"algorithm/{name}"))

    return make


def test_a_rate_is_chosen_on_other_seeds_than_those_reported(benchmark):
    with pytest.raises(ConfigError, match=r"selection_seeds=\[1, 5\]: .* \(1 of seeds\); give others"):
        benchmark("seeds=[0,1]", "selection_seeds=[1,5]")


def every(actions, length):
    return [list(tokens) for tokens in itertools.product(range(actions), repeat=length)]


def paid(landscape, completions):
    return landscape(prompts=["0 0"] * len(completions), completion_ids=completions)


def test_a_random_policy_is_paid_by_chance():
    # All 3^4 completions are equally likely. Sparse: both of 2 keys right, 1/9. Dense: each key with 1/3.
    # Prefix: (1/3 + 1/9) / 2 = 2/9.
    everything = every(actions=3, length=4)
    shape = {"questions": 2, "actions": 3, "length": 4}
    for kind, expected in ((rewards.Sparse, 1 / 9), (rewards.Dense, 1 / 3), (rewards.Prefix, 2 / 9)):
        landscape = kind(keys=2, **shape)
        assert np.mean(paid(landscape, everything)) == pytest.approx(expected)
        assert landscape.means == [pytest.approx(expected)]
        assert paid(landscape, [landscape.table[0].tolist()]) == [1.0]


def test_a_decoy_rules_the_reward_out():
    landscape = rewards.Deceptive(questions=1, actions=3, length=3, keys=1, decoy=0.3, seed=1)
    right = landscape.table[0].tolist()
    decoyed = [(right[0] + 1) % 3, *right[1:]]
    wrong = [*right[:2], (right[2] + 1) % 3]
    # The key is the last position; the first counts only as the decoy.
    assert paid(landscape, [right, decoyed, wrong]) == [1.0, 0.3, 0.0]


def test_noise_is_seen_by_the_trainer_and_not_by_the_curve():
    landscape = rewards.Prefix(questions=1, actions=2, length=2, keys=1, noise=0.5, seed=0)
    seen = paid(landscape, [landscape.table[0].tolist()] * 4000)
    assert landscape.means == [1.0]
    assert np.mean(seen) == pytest.approx(1, abs=0.03) and np.std(seen) == pytest.approx(0.5, abs=0.03)


def test_keys_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="keys=5: give 1 to length=4"):
        rewards.Sparse(questions=1, actions=2, length=4, keys=5)


def test_tokens_to_a_target():
    # 20 iterations: smoothed over 1 (a twentieth). The first curve is 0.5 at its 4th iteration, the second never.
    curves = np.zeros((2, 20))
    curves[0, 3:] = 0.5
    taken, reached = tokens_to(0.5, curves, tokens=10)
    assert taken.tolist() == [40, 200] and reached.tolist() == [True, False]
    # 40 iterations: smoothed over 2, so that one high batch is not the target reached, and two are.
    curves = np.zeros((2, 40))
    curves[0, 7], curves[1, 7:9] = 1, 1
    assert tokens_to(0.9, curves, tokens=1)[0].tolist() == [40, 9]


def test_intervals_and_ratios():
    # Mean 2, standard deviation 1, three seeds: 2 +- 4.3027 / sqrt(3).
    assert interval(np.array([1.0, 2.0, 3.0])) == pytest.approx([2, 2 - 2.4841, 2 + 2.4841], abs=1e-3)
    assert interval(np.array([0.4])) == [0.4, 0.4, 0.4]
    assert share(np.array([1.0, 1.0, 0.7])) == pytest.approx([0.9, 0.9 - 0.4303, 1.0], abs=1e-3)
    assert ratio(np.array([5.0, 5.0]), np.array([10.0, 10.0])) == [0.5, 0.5, 0.5]
    # Deviations of 1 / 5 and 2 / 10 of the means, squares over three seeds 1 / 75 each: 4 degrees of freedom, and
    # exp(2.7764 sqrt(2 / 75)) = 1.57363. A percentile bootstrap stays within 4 / 12 and 6 / 8, and covers 75 %.
    found = ratio(np.array([4.0, 6.0, 5.0]), np.array([10.0, 12.0, 8.0]))
    assert found == pytest.approx([0.5, 0.5 / 1.57363, 0.5 * 1.57363], abs=1e-4)
    # Equal variances 1 of three seeds each: Welch has 4 degrees of freedom, 2.7764 * sqrt(2 / 3) = 2.2670.
    found = difference(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx([1, 1 - 2.2670, 1 + 2.2670], abs=1e-3)


def test_the_target_is_the_mean_of_the_reference_s_last_tenth():
    reference = np.array([[0.0] * 18 + [0.4, 0.6], [0.0] * 18 + [0.8, 1.0]])
    assert final_rewards(reference).tolist() == [0.5, 0.9]
    faster = np.array([[0.0] * 4 + [1.0] * 16] * 2)
    row = against(reference, faster, tokens=10, itself=False)
    # Target 0.7. The reference: never, 200, and at the 19th iteration, 190; the other: at the 5th, 50.
    assert row["target"] == pytest.approx(0.7) and row["tokens_ratio"][0] == pytest.approx(50 / 195)
    assert row["reached"] == 2


def test_the_grid_is_extended_where_its_end_is_best(benchmark):
    made = benchmark("learning_rates=[1e-3,3e-3,1e-2]")
    assert made._beyond({1e-3: 0.1, 3e-3: 0.3, 1e-2: 0.2}) is None
    assert made._beyond({1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3}) == 3e-2
    assert made._beyond({1e-3: 0.3, 3e-3: 0.2, 1e-2: 0.1}) == 3e-4
    assert made._beyond({1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3, 3e-2: 0.4, 1e-1: 0.5}) is None  # extended twice


def test_a_critic_s_rate_is_chosen_at_the_policy_s(benchmark):
    made = benchmark("landscapes=[deceptive]", "algorithms=[ppo,grpo]", "seeds=[0,1]", "selection_seeds=[7]")
    assert made._critic_rate("ppo", 1e-3) == 1e-3 and made._critic_rate("grpo", 1e-3) is None
    trained = []

    def results(keys):
        """The policy's rate 2e-3 is best, and for it the critic's at three times its own."""
        trained.append(list(keys))
        level = {2e-3: 0.5}
        return {
            key: {
                "rewards": [level.get(key[2][0], 0.2) + 0.1 * (key[2][1] == 3)] * 20,
                "tokens_per_iteration": 1,
                "steps_per_iteration": 3 if key[1] == "ppo" else 1,
                "seconds": 1.0,
            }
            for key in trained[-1]
        }

    made._results = results
    found = made.run()["deceptive"]
    assert [(name, *rates) for _, name, *rates in trained[1]] == [("ppo", (2e-3, 0.3), 7), ("ppo", (2e-3, 3), 7)]
    assert (found["ppo"]["learning_rate"], found["ppo"]["critic_factor"]) == (2e-3, 3)
    assert found["ppo"]["tried"] == pytest.approx({"0.001": 0.2, "0.002": 0.5, "0.004": 0.2})
    assert found["ppo"]["tried_critic"] == pytest.approx({"0.3": 0.5, "3": 0.6})
    assert found["grpo"]["tried_critic"] == {} and "equal_steps" not in found["ppo"]  # three steps against one
    trained.clear()
    made.config.merge_with({"learning_rates": [5e-3], "critic_factors": []})
    assert made.run()["deceptive"]["ppo"]["tried"] == {}
    assert {key[2:] for keys in trained for key in keys} == {((5e-3, 1.0), 0), ((5e-3, 1.0), 1)}
    cell = made.cell("deceptive", "ppo", (2e-3, 3.0), 0)
    assert cell.settings["args"]["critic_learning_rate"] == pytest.approx(3e-3)


def test_rows_are_compared_with_grpo_of_as_many_steps():
    def seeds(level, steps):
        rewards = ([level + spread] * 10 for spread in (0.0, 0.1, 0.2))
        return [
            {"rewards": own, "tokens_per_iteration": 1, "steps_per_iteration": steps, "seconds": 1} for own in rewards
        ]

    runs = {("dense", "grpo"): seeds(0.1, 1), ("dense", "grpo_steps"): seeds(0.4, 3), ("dense", "ppo"): seeds(0.3, 3)}
    chosen = dict.fromkeys(runs, (1e-3, 1.0))
    found = summarise(runs, chosen, {row: {rates: 0.1} for row, rates in chosen.items()})["dense"]
    # Against GRPO of three steps, -.1 +- 2.7764 sqrt(2 * .01 / 3).
    assert found["ppo"]["equal_steps"] == pytest.approx([-0.1, -0.1 - 0.2267, -0.1 + 0.2267], abs=1e-3)
    assert found["ppo"]["final_difference"][0] == pytest.approx(0.2) and "equal_steps" not in found["grpo_steps"]


def test_every_row_is_accepted_and_mistakes_are_told(benchmark):
    benchmark("landscapes=[dense]").check()
    for mistakes, told in (
        (["landscapes=[spare]"], r"landscapes=spare: allowed are dense, sparse, noisy, deceptive\."),
        (["settings.grpo_vi.args.critic_learning_rate=x"], r"settings.grpo_vi.args.critic_learning_rate=x: .*float"),
        (["+settings.grpo.args.vi_coef=1"], r"settings.grpo.args.vi_coef=1: GRPOConfig has no such argument"),
    ):
        with pytest.raises(ConfigError, match=told):
            benchmark(*mistakes).check()


@pytest.mark.slow  # six runs
def test_a_cell_trains_and_is_reused_and_the_better_rate_is_chosen(benchmark, tmp_path):
    made = benchmark("landscapes=[dense]", "algorithms=[grpo]", *SHORT)
    results = made.run()["dense"]["grpo"]
    # A rate of 1e-9 learns nothing and stays at chance, 1/4; it and one that destroys the policy are the controls.
    assert results["learning_rate"] == 4e-3 and results["tried"]["1e-09"] == pytest.approx(0.25, abs=0.05)
    assert results["final_reward"][0] > 0.4 and results["tokens_ratio"] == [1.0, 1.0, 1.0]
    assert results["curve"]["sampled_tokens"][-1] == 20 * 2 * 16 * 8
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    assert json.loads(min(files).read_text())["names"][0] == "dense"

    def refuse(cells, folder):
        raise AssertionError("a finished cell was trained again")

    made._train = refuse
    assert made.run()["dense"]["grpo"] == results
    other = benchmark("landscapes=[dense]", "algorithms=[grpo]", "args.entropy_coef=0", *SHORT)
    rates = (4e-3, 1.0)
    assert other.cell("dense", "grpo", rates, 0).file != made.cell("dense", "grpo", rates, 0).file


def test_one_question_fills_a_batch_of_two_groups(benchmark):
    made = benchmark("landscapes=[deceptive]", "algorithms=[grpo]", "iterations.deceptive=2")
    assert len(train(made.cell("deceptive", "grpo", (1e-3, 1.0), 0).settings)["rewards"]) == 2
