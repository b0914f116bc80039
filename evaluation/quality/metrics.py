"""Metrics of one policy from its samples, and of a reward against a judge."""

import math
from collections import Counter

import numpy as np

from evaluation.quality.failures.texts import ngrams, words
from rlhf_trl_ext.data.samples import finite_number
from rlhf_trl_ext.judging.verdicts import Verdict
from rlhf_trl_ext.statistics import cohen_kappa, mean_interval, wilson_interval

INTERVALS = ("reward", "gold_reward", "kl", "entropy", "completion_tokens")
COMPARED = 200  # completions that self-BLEU looks at


def text_metrics(rows: list[dict]) -> dict:
    """Diversity and length of completions, ROUGE against `demonstration` where rows have one, means with intervals.

    Returns characters_mean, distinct_1, distinct_2, self_bleu, word_entropy (nats), rouge1, rouge2, rougeL (F1), and
    for reward, gold_reward, kl (nats per completion, k1), entropy (nats per token), completion_tokens `<name>_ci`.
    """
    texts = [words(row["completion"]) for row in rows]
    metrics = {
        "characters_mean": float(np.mean([len(row["completion"]) for row in rows])),
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "self_bleu": self_bleu(texts[:COMPARED]),
        "word_entropy": entropy(texts),
        **rouge(rows),
    }
    for name in INTERVALS:
        values = [finite_number(row.get(name)) for row in rows]
        if None not in values:
            bounds = (0, 1) if set(values) <= {0, 0.5, 1} else None
            metrics[f"{name}_ci"] = mean_interval(np.array(values, dtype=float), bounds)
    return metrics


def distinct(texts: list[list[str]], n: int) -> float | None:
    """distinct-n, unique n-grams over all n-grams of all texts (Li et al., arXiv:1510.03055); None without n-grams."""
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def entropy(texts: list[list[str]]) -> float:
    """Entropy of the words of all texts, in nats; 0 for no words."""
    counts = np.array(list(Counter(word for text in texts for word in text).values()), dtype=float)
    shares = counts / counts.sum() if len(counts) else counts
    return float(-(shares * np.log(shares)).sum())


def self_bleu(texts: list[list[str]], order: int = 4) -> float | None:
    """Mean BLEU-4 of every text against all others (Zhu et al., arXiv:1802.01886): 1 = all say the same.

    Clipped n-gram precisions over all texts, geometric mean over the orders, brevity penalty against the closest other
    length; an order without a match makes it 0. None for fewer than 2 texts of at least `order` words.
    """
    texts = [text for text in texts if len(text) >= order]
    if len(texts) < 2:
        return None
    matches = np.zeros((len(texts), order))
    for n in range(1, order + 1):
        counts = [Counter(ngrams(text, n)) for text in texts]
        best: dict = {}  # the two largest counts of an n-gram in any text, and where the largest is
        for i, row in enumerate(counts):
            for gram, count in row.items():
                first, where, second = best.get(gram, (0, -1, 0))
                best[gram] = (count, i, first) if count > first else (first, where, max(second, count))
        for i, row in enumerate(counts):
            matched = sum(min(count, best[g][2] if best[g][1] == i else best[g][0]) for g, count in row.items())
            matches[i, n - 1] = matched / sum(row.values())
    lengths = np.array([len(text) for text in texts])
    scores = []
    for i, precisions in enumerate(matches):
        others = np.delete(lengths, i)
        closest = others[np.argmin(np.abs(others - lengths[i]))]
        penalty = min(1.0, math.exp(1 - closest / lengths[i]))
        scores.append(penalty * math.exp(np.log(precisions).mean()) if precisions.all() else 0.0)
    return float(np.mean(scores))


def rouge(rows: list[dict]) -> dict[str, float]:
    """Mean ROUGE-1, ROUGE-2 and ROUGE-L F1 (rouge-score, stemmed) against `demonstration`; nothing without any."""
    pairs = [(row["demonstration"], row["completion"]) for row in rows if row.get("demonstration")]
    if not pairs:
        return {}
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, tokenizer=DefaultTokenizer(use_stemmer=True))
    scores = [scorer.score(*pair) for pair in pairs]
    return {name: float(np.mean([row[name].fmeasure for row in scores])) for name in names}


def reward_quality(verdicts: list[Verdict], policy: list[dict], baseline: list[dict], bins: int = 10) -> dict | None:
    """How well the recorded `reward` predicts a judge: accuracy on decided pairs, calibration, correlation with length.

    ECE is `sum over bins share * |mean sigmoid(margin) - win rate|` over equal-width bins of `sigmoid(margin)`, margin
    = reward of the policy's sample minus the baseline's, as the Bradley-Terry loss means it. It is above 0 for a
    perfect reward too, the more the fewer pairs: `ece_calibrated` is its mean and 95 % range over 2,000 draws of
    outcomes from the reward's own probabilities, only above which a reward is seen to be off. None without rewards.
    """
    rows = [*policy, *baseline]
    decided = [i for i, verdict in enumerate(verdicts) if verdict.outcome in (0.0, 1.0)]
    if any(finite_number(row.get("reward")) is None for row in rows) or not decided:
        return None
    margins = np.array([policy[i]["reward"] - baseline[i]["reward"] for i in decided])
    won = np.array([verdicts[i].outcome for i in decided])
    right = ((margins > 0) == (won == 1)) & (margins != 0)
    p = 1 / (1 + np.exp(-margins))
    simulated = np.random.default_rng(0).random((2000, len(p))) < p
    calibrated = calibration_error(p, simulated, bins)
    rewards, lengths = np.array([row["reward"] for row in rows]), np.array([len(row["completion"]) for row in rows])
    constant = np.ptp(rewards) == 0 or np.ptp(lengths) == 0
    return {
        "pairs": len(decided),
        "accuracy": float(right.mean()),
        "accuracy_ci": wilson_interval(right.sum(), len(decided)),
        "kappa": cohen_kappa(np.sign(margins) / 2 + 0.5, won),
        "ece": float(calibration_error(p, won[None], bins)[0]),
        "ece_calibrated": [float(calibrated.mean()), *np.quantile(calibrated, [0.025, 0.975]).tolist()],
        "length_correlation": None if constant else float(np.corrcoef(rewards, lengths)[0, 1]),
    }


def calibration_error(p: np.ndarray, won: np.ndarray, bins: int) -> np.ndarray:
    """ECE of probabilities `(N,)` for each of R sets of outcomes `(R, N)`: `(R,)`."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    members = np.eye(bins)[place]  # (N, bins)
    return np.abs((won - p) @ members).sum(axis=1) / len(p)
