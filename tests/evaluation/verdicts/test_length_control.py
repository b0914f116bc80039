import csv
import gzip
import time
from collections import defaultdict

import numpy as np
import pytest
from scipy.special import expit

from evaluation.verdicts.length_control import STRENGTH, Anchor, alpaca_eval, joint
from rlhf_trl_ext.statistics import mean_interval


def numbers(rows, *keys):
    return [np.array([float(row[key] or "nan") for row in rows]) for key in keys]


@pytest.fixture
def alpaca(shared):
    """Annotations by model, difficulty by row number, anchor, leaderboard and published weights."""
    folder = shared / "data/alpaca_eval"
    annotations = defaultdict(list)
    with gzip.open(folder / "annotations_compact.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            annotations[row["model"]].append(row)
    with (folder / "df_gamed_surrogate.csv").open() as file:
        anchor = Anchor(*numbers(list(csv.DictReader(file)), "std_delta_len", "preference", "instruction_difficulty"))
    with (folder / "leaderboard.csv").open() as file:
        published = {row[""]: row for row in csv.DictReader(file)}
    with (folder / "glm_weights.csv").open() as file:
        weights = {row[""]: [float(v) for k, v in row.items() if k] for row in csv.DictReader(file)}
    return annotations, anchor, published, weights


def fitted(rows, anchor, strength=STRENGTH):
    baseline, model, preference, row = numbers(rows, "len_baseline", "len_model", "preference", "row")
    # 0 is upstream's other mark of a draw; row i takes entry i of the difficulty table
    preference = np.where(preference == 0, 1.5, preference) - 1
    return alpaca_eval(preference, baseline - model, anchor.difficulty[:805][row.astype(int)], anchor, strength)


def test_published_win_rates_are_reproduced(alpaca):
    annotations, _, published, _ = alpaca
    compared = 0
    for model in sorted(annotations.keys() & published.keys()):
        (preference,) = numbers(annotations[model], "preference")
        preference = preference[~np.isnan(preference)]
        won = np.where(preference == 0, 1.5, preference) - 1
        discrete = ((won > 0.5) + 0.5 * (won == 0.5)).mean()
        expected = [float(published[model][key]) for key in ("win_rate", "standard_error", "discrete_win_rate")]
        found = [100 * won.mean(), 100 * won.std(ddof=1) / len(won) ** 0.5, 100 * discrete]
        assert found == pytest.approx(expected, abs=1e-8), model
        compared += 1
    assert compared == 45  # text_davinci_003 has no published row


def test_published_length_controlled_win_rates_are_reproduced(alpaca):
    annotations, anchor, published, _ = alpaca
    for model in sorted(annotations.keys() & published.keys()):
        found = 100 * fitted(annotations[model], anchor)["length_controlled_win_rate"]
        assert found == pytest.approx(float(published[model]["length_controlled_winrate"]), abs=0.1), model


def test_published_weights_are_those_of_one_of_the_ten_strengths(alpaca):
    # everything but upstream's choice among the strengths
    annotations, anchor, _, weights = alpaca
    for model in ("alpaca-7b_concise", "claude-instant-1.2", "FuseChat-Llama-3.1-8B-Instruct", "Qwen-14B-Chat"):
        candidates = [fitted(annotations[model], anchor, c)["weights"] for c in np.logspace(-4, 4, 10)[4:8]]
        best = min(np.abs(np.array(list(c.values())) - weights[model]).max() for c in candidates)
        assert best < 0.002, model


def test_cross_validation_chooses_as_upstream_where_the_choice_is_clear(alpaca):
    annotations, anchor, published, _ = alpaca
    for model in ("claude-2.1", "phi-2"):
        found = 100 * fitted(annotations[model], anchor, strength=None)["length_controlled_win_rate"]
        assert found == pytest.approx(float(published[model]["length_controlled_winrate"]), abs=0.005), model


def test_equal_lengths_leave_the_raw_win_rate():
    generator = np.random.default_rng(0)
    prompts = np.arange(200)
    games = {name: (prompts, np.zeros(200), generator.integers(0, 2, 200)) for name in "ab"}
    for name, row in joint(games).items():
        assert row["length_controlled_win_rate"] == pytest.approx(games[name][2].mean(), abs=1e-4)
        assert row["length_weight"] == 0
        # the delta interval is the normal one of a mean: 0.5 +- 1.96 sqrt(p (1 - p) / 200)
    alone = joint({"a": games["a"]})["a"]
    share = games["a"][2].mean()
    half = 1.96 * (share * (1 - share) / 200) ** 0.5
    assert alone["length_controlled_ci"] == pytest.approx([share - half, share + half], abs=1e-3)


def test_a_judge_that_only_likes_length_is_seen_through():
    # P(win) = sigmoid(-3 tanh(d / std)): true controlled win rate 1/2, though the longer policy wins most pairs.
    generator = np.random.default_rng(0)
    lengths = generator.normal(-150, 200, (2, 4000))
    games = {}
    for name, d in zip("ab", lengths, strict=True):
        won = generator.random(4000) < expit(-3 * np.tanh(d / d.std(ddof=1)))
        games[name] = (np.arange(4000), d, won.astype(float))
    for name, row in joint(games).items():
        assert games[name][2].mean() > 0.65
        low, high = row["length_controlled_ci"]
        assert low < 0.5 < high and high - low < 0.08
        assert row["length_weight"] == pytest.approx(-3, abs=0.35)


def test_the_interval_covers():
    # truth: mean over difficulty of sigmoid(0.4); nominal 95 of 100, 3 standard errors down is 88
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        d = generator.normal(-50, 100, 300)
        won = generator.random(300) < expit(0.4 - np.tanh(d / d.std(ddof=1)))
        low, high = joint({"a": (np.arange(300), d, won.astype(float))})["a"]["length_controlled_ci"]
        covered += low <= expit(0.4) <= high
    assert covered >= 88


def test_a_hundred_thousand_pairs_take_seconds():
    generator = np.random.default_rng(0)
    prompts = np.arange(10_000)
    games = {str(i): (prompts, generator.normal(0, 99, 10_000), generator.random(10_000)) for i in range(10)}
    begin = time.process_time()
    fits = joint(games)
    for _, _, preference in games.values():
        mean_interval(preference)
    assert time.process_time() - begin < 10
    assert all(abs(row["length_controlled_win_rate"] - 0.5) < 0.02 for row in fits.values())
