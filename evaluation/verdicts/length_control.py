"""Win rates as they would be if both answers had the same length."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from rlhf_trl_ext.statistics import LEVEL

FEWEST, SIDE = 100, 0.05  # prompts, and the share of them that is longer and shorter, from which the interval covers
ANCHOR_WEIGHT = 0.1  # 0.2 for the regularisation, shared by two anchor models
STRENGTH = 10 ** (4 / 3)  # of upstream's ten the one that is nearest to all published values


@dataclass(frozen=True)
class Anchor:
    """Verdicts on models that are the baseline except in length, `(M,)` each: they say what length alone is worth.

    lengths: baseline minus model characters over their standard deviation. preferences: of the model, in [0, 1].
    """

    lengths: np.ndarray
    preferences: np.ndarray
    difficulty: np.ndarray


def read_anchor(path: str | Path, count: int) -> Anchor:
    """An anchor file as AlpacaEval's df_gamed.csv: std_delta_len, preference and instruction_difficulty.

    Its rows begin with those of one anchor model in the order of the prompts, which give every prompt's difficulty.
    count: prompts judged. Raises ValueError for a missing file or column, or fewer rows than prompts.
    """
    columns = ("std_delta_len", "preference", "instruction_difficulty")
    try:
        with Path(path).open() as file:
            rows = [[float(row[column]) for column in columns] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError):
        raise ValueError(f"anchor={path} is no CSV file with the columns {', '.join(columns)}.") from None
    if len(rows) < count:
        raise ValueError(f"anchor={path} has {len(rows)} rows for {count} prompts: it belongs to another prompt set.")
    return Anchor(*np.array(rows).T)


def alpaca_eval(
    preferences: np.ndarray,
    lengths: np.ndarray,
    difficulty: np.ndarray,
    anchor: Anchor,
    strength: float | None = STRENGTH,
) -> dict:
    """AlpacaEval-2's length-controlled win rate, `mean sigmoid(b * difficulty + c)` (arXiv:2404.04475, section 3).

    `logit P(model wins) = a tanh(d / std d) + b difficulty + c` with d = baseline minus model characters and std with
    ddof = 1, fitted by L1 logistic regression without intercept (liblinear) on the model's pairs and the anchor's,
    whose c is 0. A soft target p is a win of weight p and a loss of weight 1 - p.

    preferences: `(N,)` of the model in [0, 1], NaN where there is none. lengths: `(N,)` d in characters.
    difficulty: `(N,)`; upstream takes row i of its table for row i of the model's annotations, whatever its prompt.
    strength: sklearn's C. None: the best of ten by 5-fold cross-validation, as upstream; the choice turns on 1e-6 of
    log loss, upstream's folds on an unstable sort, and the result by up to 0.1 points.
    Returns length_controlled_win_rate and the weights.
    """
    own = np.stack([_scaled(lengths), difficulty, np.ones(len(lengths))], axis=1)  # (N, 3)
    anchors = np.stack([np.tanh(anchor.lengths), anchor.difficulty, np.zeros(len(anchor.lengths))], axis=1)
    targets = np.concatenate([anchor.preferences, preferences])
    judged = ~np.isnan(targets)
    weights = np.concatenate([np.full(len(anchors), ANCHOR_WEIGHT), np.ones(len(own))])[judged]
    features, targets = np.concatenate([anchors, own])[judged], targets[judged]
    a, b, c = _fit(features, targets, weights, strength or _best_strength(features, targets, weights))
    return {
        "length_controlled_win_rate": float(expit(b * difficulty + c).mean()),
        "weights": {"length": float(a), "difficulty": float(b), "model": float(c)},
    }


def joint(games: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], ridge: float = 1.0) -> dict[str, dict]:
    """Length-controlled win rates of several policies on any prompts: `mean over prompts sigmoid(c_m + g_x)`.

    `logit P(m wins on x) = c_m + a_m tanh(d / std d) + g_x`, fitted for all policies at once with an L2 penalty
    `ridge / 2 * sum_x g_x^2` on the prompts' difficulty. Nothing else is penalised, so a policy whose answers are never
    longer or shorter keeps its raw win rate. With one policy, prompts cannot be told from noise and g is 0.

    games: policy -> (prompt numbers `(N,)`, d = baseline minus policy characters `(N,)`, preferences `(N,)` in [0, 1]).
    Returns policy -> length_controlled_win_rate, `length_controlled_ci` (delta method on (a, c), sandwich covariance
    over pairs, g held fixed; None below 100 prompts, or where fewer than 5 % of the answers are longer or shorter than
    the baseline's, as it would not cover, see evaluation/RESULTS.md), length_weight.
    """
    names = list(games)
    sizes = [len(games[name][0]) for name in names]
    policy = np.repeat(np.arange(len(names)), sizes)
    _, prompt = np.unique(np.concatenate([games[name][0] for name in names]), return_inverse=True)
    targets = np.concatenate([games[name][2] for name in names]).astype(float)
    scaled = np.concatenate([_scaled(games[name][1]) for name in names])
    k, prompts = len(names), int(prompt.max()) + 1

    def loss(parameters):
        c, a, g = np.split(parameters, [k, 2 * k])
        g = g * (k > 1)
        margin = c[policy] + a[policy] * scaled + g[prompt]
        residual = expit(margin) - targets
        slopes = [
            np.bincount(policy, residual, k),
            np.bincount(policy, residual * scaled, k),
            (np.bincount(prompt, residual, prompts) + ridge * g) * (k > 1),
        ]
        return (np.logaddexp(0, margin) - targets * margin).sum() + ridge / 2 * g @ g, np.concatenate(slopes)

    options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-5}
    bounds = [(-20, 20)] * (2 * k + prompts)
    solution = minimize(loss, np.zeros(2 * k + prompts), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    c, a, g = np.split(solution, [k, 2 * k])
    return {
        name: _delta(c[i], a[i], g[prompt[policy == i]], scaled[policy == i], targets[policy == i])
        for i, name in enumerate(names)
    }


def _scaled(lengths: np.ndarray) -> np.ndarray:
    """`tanh(d / std d)`, or 0 where all answers differ by the same length and nothing can be learned from it."""
    spread = np.std(lengths, ddof=1) if len(lengths) > 1 else 0.0
    return np.tanh(lengths / spread) if spread > 0 else np.zeros(len(lengths))


def _delta(c: float, a: float, g: np.ndarray, scaled: np.ndarray, targets: np.ndarray) -> dict:
    """Win rate at equal lengths with its interval: uncertainty of (c, a) and of which prompts were drawn."""
    features = np.stack([np.ones(len(g)), scaled], axis=1)  # (N, 2)
    p = expit(c + a * scaled + g)
    even = expit(c + g)
    bread = np.linalg.pinv(features.T @ (features * (p * (1 - p))[:, None]))
    slope = np.array([(even * (1 - even)).mean(), 0.0])
    influence = features * (targets - p)[:, None] @ bread @ slope + (even - even.mean()) / len(g)
    half = norm.ppf((1 + LEVEL) / 2) * np.sqrt((influence**2).sum())
    rate = float(even.mean())
    ends = [max(0.0, float(rate - half)), min(1.0, float(rate + half))]
    longer = (scaled > 0).mean()  # equal lengths lie outside of what was seen if all answers are longer, or shorter
    covers = len(g) >= FEWEST and (not scaled.any() or SIDE <= longer <= 1 - SIDE)
    return {
        "length_controlled_win_rate": rate,
        "length_controlled_ci": ends if covers else None,
        "length_weight": float(a),
    }


def _best_strength(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """The strength with the best held-out weighted log loss, of ten from 1e-4 to 1e4."""
    folds = list(GroupKFold(n_splits=5).split(features, groups=np.arange(len(targets))))
    strengths = np.logspace(-4, 4, 10)
    losses = []
    for strength in strengths:
        scores = []
        for train, test in folds:
            margin = features[test] @ _fit(features[train], targets[train], weights[train], strength)
            scores.append(np.mean(weights[test] * (np.logaddexp(0, margin) - targets[test] * margin)))
        losses.append(np.mean(scores))
    return float(strengths[int(np.argmin(losses))])


def _fit(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    model = LogisticRegression(
        C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, random_state=123, max_iter=100
    )
    wins = np.repeat([1, 0], len(targets))
    doubled = np.concatenate([weights * targets, weights * (1 - targets)])
    return model.fit(np.concatenate([features, features]), wins, sample_weight=doubled).coef_[0]
