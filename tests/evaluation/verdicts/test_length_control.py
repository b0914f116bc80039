import csv
import gzip
from collections import defaultdict

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from evaluation.verdicts.length_control import LANGUAGE_MODELS, STRENGTH, Anchor, LengthPrior, alpaca_eval, joint


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


def prior_without(weights, left_out):
    """The prior as all published models but these would give it; `difficulty` has a deviation of 1.48."""
    known = np.array([row[:2] for name, row in weights.items() if name not in left_out])
    length, difficulty = known[:, 0], known[:, 1] * 1.48
    return LengthPrior(length.mean(), length.std() / len(known) ** 0.5, length.std(), difficulty.mean())


def test_the_prior_is_that_of_the_published_models(alpaca):
    *_, weights = alpaca
    assert vars(prior_without({k: v for k, v in weights.items() if k != "gpt4_1106_preview"}, ())) == pytest.approx(
        vars(LANGUAGE_MODELS), abs=0.005
    )


def test_five_policies_without_anchors_come_near_the_published_win_rates(alpaca):
    # 4.7 points with a weight of length for every policy and no prior; raw win rates are 4.7 off and rank with .96.
    annotations, _, published, weights = alpaca
    names = sorted((annotations.keys() & published.keys()) - {"gpt4_1106_preview"})  # the baseline itself
    order = np.random.default_rng(0).permutation(names)
    found = {}
    for i in range(0, len(order), 5):
        group = [*order[i : i + 5], *order[: max(0, i + 5 - len(order))]]
        games = {}
        for name in group:
            baseline, model, preference, row = numbers(
                annotations[name], "len_baseline", "len_model", "preference", "row"
            )
            kept = ~np.isnan(preference)
            won = np.where(preference == 0, 1.5, preference) - 1
            games[name] = (row[kept], (baseline - model)[kept], won[kept])
        fits = joint(games, prior_without(weights, {*group, "gpt4_1106_preview"}))
        found |= {name: fits[name]["length_controlled_win_rate"] for name in order[i : i + 5]}
    known = [name for name in order if found[name] is not None]
    estimates, truth, raw = (
        np.array(own)
        for own in zip(
            *(
                (100 * found[n], float(published[n]["length_controlled_winrate"]), float(published[n]["win_rate"]))
                for n in known
            ),
            strict=True,
        )
    )
    print(f"{len(known)} models: {abs(estimates - truth).mean():.2f} points, {spearmanr(estimates, truth)[0]:.3f}")
    assert len(known) >= 40  # the others are almost never as long as the baseline
    assert abs(estimates - truth).mean() < 3 < abs(raw - truth).mean()
    assert spearmanr(estimates, truth)[0] > spearmanr(raw, truth)[0] + 0.01


def test_a_judge_unlike_the_published_ones_outweighs_the_prior():
    # No taste for length, answers half a deviation longer: five policies, 400 prompts, win rate .6 at any length.
    generator = np.random.default_rng(0)
    hard = 1.4 * generator.normal(size=400)
    games = {}
    for name in "abcde":
        won = generator.random(400) < expit(0.4 + hard)
        games[name] = (np.arange(400), generator.normal(-50, 100, 400), won.astype(float))
    for name, row in joint(games, LANGUAGE_MODELS).items():
        assert abs(row["length_weight"]) < 0.6, name
        assert row["length_controlled_win_rate"] == pytest.approx(games[name][2].mean(), abs=0.03)


def test_lengths_that_do_not_overlap_cannot_be_controlled():
    generator = np.random.default_rng(0)
    game = {"a": (np.arange(200), generator.normal(-500, 100, 200), generator.integers(0, 2, 200).astype(float))}
    for prior in (None, LANGUAGE_MODELS):
        (row,) = joint(game, prior).values()
        assert row["length_controlled_win_rate"] is None and row["length_controlled_ci"] is None


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
