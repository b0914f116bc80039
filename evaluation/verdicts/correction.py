"""A judge's win rate corrected by the human labels of some of its pairs: Rogan-Gladen and prediction-powered."""

import numpy as np
from scipy.stats import t

from rlhf_trl_ext.judging.verdicts import Verdict
from rlhf_trl_ext.statistics import LEVEL, mean_interval

LEAST_LABELS = 10
LEAST_SKILL = 0.1  # sensitivity + specificity - 1 below which a judge says next to nothing


def correction(verdicts: list[Verdict], labels: list[Verdict], prompts: np.ndarray | None = None) -> dict | None:
    """Win rates `raw`, `rogan_gladen`, `prediction_powered` and `human`, each `[estimate, low, high]`; 95 % intervals.

    The labelled pairs have to be a random choice of all. Ties count one half in both. Also `labels` and `pairs`
    (counts), the judge's `sensitivity` and `specificity` against people. rogan_gladen is None for a judge that says
    next to nothing. prompts: `(N,)`, pairs of one prompt share a number. None for fewer than 10 labels.
    """
    judge, human = (np.array([np.nan if v.outcome is None else v.outcome for v in own]) for own in (verdicts, labels))
    read = ~np.isnan(judge)
    judge, human = judge[read], human[read]
    groups = np.arange(len(judge)) if prompts is None else np.unique(np.asarray(prompts)[read], return_inverse=True)[1]
    labelled = ~np.isnan(human)
    if labelled.sum() < LEAST_LABELS:
        return None
    rates = error_rates(judge[labelled], human[labelled])
    return {
        "raw": [float(judge.mean()), *mean_interval(judge, (0, 1), groups)],
        "rogan_gladen": rogan_gladen(judge, human, groups),
        "prediction_powered": prediction_powered(judge, human, groups),
        "human": [float(human[labelled].mean()), *mean_interval(human[labelled], (0, 1), groups[labelled])],
        "labels": int(labelled.sum()),
        "pairs": len(judge),
        "sensitivity": rates[0],
        "specificity": rates[1],
    }


def error_rates(judge: np.ndarray, human: np.ndarray) -> tuple[float, float]:
    """Sensitivity `sum h j / sum h` and specificity `sum (1 - h)(1 - j) / sum (1 - h)`; nan where a side is empty."""
    wins, losses = human.sum(), (1 - human).sum()
    sensitivity = (human * judge).sum() / wins if wins else np.nan
    specificity = ((1 - human) * (1 - judge)).sum() / losses if losses else np.nan
    return float(sensitivity), float(specificity)


def rogan_gladen(judge: np.ndarray, human: np.ndarray, groups: np.ndarray) -> list[float] | None:
    """`(p + specificity - 1) / (sensitivity + specificity - 1)` (Rogan and Gladen 1978; for judges arXiv:2511.21140).

    judge, human: `(N,)` outcomes in [0, 1], human nan without a label. The interval is Fieller's, of a ratio, over
    prompts; where no error was seen on a side, its rate has the variance of half an error. None where the labels do not
    tell the judge from chance.
    """
    labelled = ~np.isnan(human)
    h, j, p = human[labelled], judge[labelled], judge.mean()
    sensitivity, specificity = error_rates(j, h)
    skill, above = sensitivity + specificity - 1, p + specificity - 1
    if not skill > LEAST_SKILL:
        return None
    top, bottom = (judge - p) / len(judge), np.zeros(len(judge))  # influence of every pair on numerator and denominator
    of_specificity = (1 - h) * (1 - j - specificity) / (1 - h).sum()
    top[labelled] += of_specificity
    bottom[labelled] += of_specificity + h * (j - sensitivity) / h.sum()
    parts = [np.bincount(groups, own) for own in (top, bottom)]
    (aa, ab), (_, bb) = [[float(x @ y) for y in parts] for x in parts]
    sides = ((sensitivity, h.sum()), (specificity, (1 - h).sum()))
    unseen = [0.25 / count**2 if share == 1 else 0.0 for share, count in sides]
    aa, ab, bb = aa + unseen[1], ab + unseen[1], bb + sum(unseen)
    return _fieller(above, skill, aa, ab, bb, labelled.sum())


def _fieller(top: float, bottom: float, aa: float, ab: float, bb: float, labels: int) -> list[float] | None:
    """A ratio and the interval of all values that its parts, with these variances and covariance, do not contradict."""
    squared = t.ppf((1 + LEVEL) / 2, labels - 1) ** 2
    scale, middle = bottom**2 - squared * bb, top * bottom - squared * ab
    inside = middle**2 - scale * (top**2 - squared * aa)
    if scale <= 0 or inside < 0:
        return None
    ends = [(middle + sign * np.sqrt(inside)) / scale for sign in (-1, 1)]
    return [float(np.clip(value, 0, 1)) for value in (top / bottom, *ends)]


def prediction_powered(judge: np.ndarray, human: np.ndarray, groups: np.ndarray) -> list[float]:
    """`mean human + w (mean judge - mean judge of the labelled)`, w least in variance (arXiv:2301.09633, 2311.01453).

    Holds whatever the judge's errors are; a judge without use gets w = 0 and leaves the people's rate. The interval is
    a score interval (Wilson 1927) with the number of labels that a share of the same variance would need. Arguments as
    of `rogan_gladen`.
    """
    labelled = ~np.isnan(human)
    h, j, count, total = human[labelled], judge[labelled], labelled.sum(), len(judge)
    spread = j.var(ddof=1)
    weight = float(np.cov(h, j)[0, 1] / spread) if spread > 1e-12 else 0.0
    weight = float(np.clip(weight, 0, 1))
    rate = float(np.clip(h.mean() + weight * (judge.mean() - j.mean()), 0, 1))
    influence = weight * (judge - judge.mean()) / total
    influence[labelled] += (h - h.mean() - weight * (j - j.mean())) / count
    variance = float((np.bincount(groups, influence) ** 2).sum()) * count / (count - 1)
    ratio = (count * count * variance / max(rate * (1 - rate), 1e-12) + 1) / (count + 1)
    ratio = ratio if 1e-9 < rate < 1 - 1e-9 else 1.0
    size, z = count / ratio, t.ppf((1 + LEVEL) / 2, count - 1)
    middle = (rate + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * np.sqrt(rate * (1 - rate) / size + z * z / (4 * size**2))
    return [rate, float(max(0.0, middle - half)), float(min(1.0, middle + half))]


def in_words(corrected: dict) -> str:
    """One sentence on the win rates."""
    parts = {"raw": "the judge alone", "rogan_gladen": "Rogan-Gladen", "prediction_powered": "prediction-powered"}
    rates = [
        f"{words} {own[0]:.1%} ({own[1]:.1%} to {own[2]:.1%})"
        for key, words in (*parts.items(), ("human", "people alone"))
        if (own := corrected[key])
    ]
    return f"win rate by {', '.join(rates)}; {corrected['labels']} of {corrected['pairs']} pairs were labelled."
