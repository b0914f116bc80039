"""Win rates as they would be if both answers had the same length."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit, logsumexp
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from rlhf_trl_ext.statistics import LEVEL

FEWEST, SIDE = 100, 0.05  # prompts, and the share of them that is longer and shorter, from which the interval covers
OVERLAP = 0.01  # that share, from which there is a rate where a prior says what length is worth
ANCHOR_WEIGHT = 0.1  # 0.2 for the regularisation, shared by two anchor models
STRENGTH = 10 ** (4 / 3)  # of upstream's ten the one that is nearest to all published values


NODES = 11  # of the quadrature over the prompts' difficulty
DIFFICULTIES = (0.0, 0.5, 1.0, 2.0)  # standard deviations that are tried where none is known
SPREAD = 0.37  # standard deviation of the weight of length over the published models


@dataclass(frozen=True)
class LengthPrior:
    """What is known of a judge's taste for length: `mu = mean + error t_3`, whose tails let other taste win.

    mean: of the weight on `tanh(d / std d)`. error: its standard error. spread: standard deviation over policies.
    difficulty: standard deviation of the prompts' difficulty, in logits.
    """

    mean: float
    error: float
    spread: float
    difficulty: float

    def penalty(self, mu: float) -> float:
        return float(2 * np.log1p(((mu - self.mean) / self.error) ** 2 / 3))

    def precision(self, mu: float) -> float:
        """The factor of `mu - mean` in the penalty's gradient."""
        return 4 / 3 / self.error**2 / (1 + ((mu - self.mean) / self.error) ** 2 / 3)


# Weights that AlpacaEval-2 publishes for 187 models judged by GPT-4, where anchor models tell the worth of length from
# that of effort: their mean, its standard error, their deviation, and that of difficulty times its weight.
LANGUAGE_MODELS = LengthPrior(mean=-1.50, error=0.03, spread=SPREAD, difficulty=1.34)


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


def joint(
    games: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], prior: LengthPrior | None = None
) -> dict[str, dict]:
    """Length-controlled win rates of several policies on any prompts: `mean over prompts E[sigmoid(c_m + g_x)]`.

    `logit P(m wins on x) = c_m + (mu + u_m) tanh(d / std d) + g_x`, fitted for all policies at once, with the prompts'
    difficulty `g_x ~ N(0, difficulty^2)` integrated out and `u_m ~ N(0, spread^2)`: the worth of length is the judge's,
    so policies share most of it. A policy whose answers are never longer or shorter keeps its raw win rate.

    games: policy -> (prompt numbers `(N,)`, d = baseline minus policy characters `(N,)`, preferences `(N,)` in [0, 1]).
    prior: of mu and of the difficulty; None: mu is free, and the likeliest of DIFFICULTIES is taken, 0 for one policy,
    whose prompts cannot be told from noise.
    Returns policy -> length_controlled_win_rate, `length_controlled_ci` (delta method on all weights, sandwich
    covariance over prompts), length_weight (mu + u_m). The interval is None where fewer than 5 % of a policy's answers
    are longer, or shorter, than the baseline's, and below 100 prompts: it would not cover (evaluation/RESULTS.md). The
    rate is None there too, with a prior below 1 %: equal lengths lie outside of what was seen.
    """
    fit = _Joint(list(games.values()), prior)
    rates, halves, weights = fit.results()
    results = {}
    for m, (name, (_, lengths, _)) in enumerate(games.items()):
        side = min((lengths < 0).mean(), (lengths > 0).mean()) if lengths.any() else 1.0
        overlap, covers = side >= (OVERLAP if prior else SIDE), side >= SIDE
        ends = [max(0.0, float(rates[m] - halves[m])), min(1.0, float(rates[m] + halves[m]))]
        results[name] = {
            "length_controlled_win_rate": float(rates[m]) if overlap else None,
            "length_controlled_ci": ends if covers and len(lengths) >= FEWEST else None,
            "length_weight": float(weights[m]),
        }
    return results


class _Joint:
    """The fit of `joint`. Parameters are `(c_1 .. c_M, u_1 .. u_M, mu)`; arrays are `(M, X)`, policies by prompts."""

    def __init__(self, games: list[tuple[np.ndarray, np.ndarray, np.ndarray]], prior: LengthPrior | None) -> None:
        numbers, prompt = np.unique(np.concatenate([game[0] for game in games]), return_inverse=True)
        policy = np.repeat(np.arange(len(games)), [len(game[0]) for game in games])
        self.count, self.prior, self.spread = len(games), prior, prior.spread if prior else SPREAD
        self.given, self.targets, self.lengths = (np.zeros((len(games), len(numbers))) for _ in range(3))
        self.given[policy, prompt] = 1
        self.targets[policy, prompt] = np.concatenate([game[2] for game in games])
        self.lengths[policy, prompt] = np.concatenate([_scaled(game[1]) for game in games])
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self.log_weights = np.log(weights / weights.sum())
        # A prior with heavy tails can leave two optima: near it, and where the verdicts alone are.
        starts = (prior.mean, 0.0) if prior else (0.0,)
        difficulties = (prior.difficulty,) if prior else DIFFICULTIES[: None if self.count > 1 else 1]
        _, self.difficulty, self.parameters = min(
            (self.fit(start, nodes * difficulty) for start in starts for difficulty in difficulties),
            key=lambda fit: fit[0],
        )

    def fit(self, mu: float, difficulty: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        self.difficulty = difficulty
        start = np.append(np.zeros(2 * self.count), mu)
        best = minimize(self.loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
        return best.fun, difficulty, best.x

    def posterior(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Log-likelihood; the prompts' weights on the nodes of difficulty `(X, Q)`; `P(m wins) (M, X, Q)` there."""
        c, u, mu = parameters[: self.count], parameters[self.count : -1], parameters[-1]
        margin = (c[:, None] + (mu + u)[:, None] * self.lengths)[..., None] + self.difficulty
        losses = (np.logaddexp(0, margin) - self.targets[..., None] * margin) * self.given[..., None]
        joint_log = self.log_weights - losses.sum(axis=0)
        evidence = logsumexp(joint_log, axis=1, keepdims=True)
        return float(evidence.sum()), np.exp(joint_log - evidence), expit(margin)

    def scores(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-likelihood, and every prompt's gradient of it `(X, 2 M + 1)`."""
        evidence, weights, wins = self.posterior(parameters)
        residual = (self.targets - (wins * weights).sum(axis=-1)) * self.given
        sloped = residual * self.lengths
        return evidence, np.concatenate([residual, sloped, sloped.sum(axis=0, keepdims=True)]).T

    def loss(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        evidence, scores = self.scores(parameters)
        u, mu = parameters[self.count : -1], parameters[-1]
        penalty = 0.5 * (u**2).sum() / self.spread**2 + (self.prior.penalty(mu) if self.prior else 0.0)
        return penalty - evidence, self.precision(mu) * self.off_centre(parameters) - scores.sum(axis=0)

    def off_centre(self, parameters: np.ndarray) -> np.ndarray:
        return parameters - np.append(np.zeros(2 * self.count), self.prior.mean if self.prior else 0.0)

    def precision(self, mu: float) -> np.ndarray:
        """Of every parameter's prior, `(2 M + 1,)`; that of mu falls with the distance to it."""
        of_mu = self.prior.precision(mu) if self.prior else 0.0
        return np.concatenate([np.zeros(self.count), np.full(self.count, self.spread**-2), [of_mu]])

    def rates(self, parameters: np.ndarray) -> np.ndarray:
        """`E[sigmoid(c_m + g_x)]`, `(M, X)`."""
        _, weights, _ = self.posterior(parameters)
        return (expit(parameters[: self.count, None, None] + self.difficulty) * weights).sum(axis=-1)

    def results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rates, half-widths of their intervals, and weights of length, `(M,)` each."""
        at, pairs = self.parameters, self.given.sum(axis=1)
        rates = self.rates(at)
        mean = lambda parameters: (self.rates(parameters) * self.given).sum(axis=1) / pairs  # noqa: E731
        slopes = approx_fprime(at, mean)  # (M, 2 M + 1)
        bread = np.linalg.pinv(approx_fprime(at, lambda parameters: self.loss(parameters)[1]))
        steps = slopes @ bread
        _, scores = self.scores(at)
        drawn = (rates - mean(at)[:, None]) * self.given / pairs[:, None]  # which prompts were drawn
        variance = ((steps @ scores.T + drawn) ** 2).sum(axis=1) + (steps**2) @ self.precision(at[-1])
        half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
        return mean(at), half, at[self.count : -1] + at[-1]


def _scaled(lengths: np.ndarray) -> np.ndarray:
    """`tanh(d / std d)`, or 0 where all answers differ by the same length and nothing can be learned from it."""
    spread = np.std(lengths, ddof=1) if len(lengths) > 1 else 0.0
    return np.tanh(lengths / spread) if spread > 0 else np.zeros(len(lengths))


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
