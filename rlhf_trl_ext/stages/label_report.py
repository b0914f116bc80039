"""What a labelling shows: counts, agreement, biases, label mass, cost, examples; as a dictionary and as Markdown."""

import itertools

import numpy as np

from rlhf_trl_ext.judging.bias import length_bias, order_flip_rate, position_bias
from rlhf_trl_ext.judging.labelling import IDENTICAL, LABEL, TIE, UNPARSABLE, Label
from rlhf_trl_ext.judging.prompt import as_text
from rlhf_trl_ext.markdown import rows
from rlhf_trl_ext.statistics import cohen_kappa, wilson_interval

BINS = 10
EXAMPLES = 3  # of each kind
LONGEST = 400  # characters of a text that are shown
FIELDS = ("preference", "shown_first", "shown_second", "mass", "known")


class Tally:
    """Takes labels one by one and keeps five numbers of each, and a few examples."""

    def __init__(self):
        self.counts = {"pairs": 0, LABEL: 0, TIE: 0, IDENTICAL: 0, UNPARSABLE: 0, "rows": 0}
        self.numbers: list[tuple] = []
        self.examples: dict[str, list[dict]] = {}

    def add(self, label: Label, trains: bool) -> None:
        """Count a label. trains: whether it became a row."""
        self.counts["pairs"] += 1
        self.counts[label.status] += 1
        self.counts["rows"] += trains
        if label.status != IDENTICAL:
            values = (label.preference, label.shown_first, label.shown_second, label.mass, label.pair.known)
            longer = len(label.pair.first) - len(label.pair.second)
            self.numbers.append((*(np.nan if v is None else v for v in values), longer))
        self._example(label)

    def _example(self, label: Label) -> None:
        kind = label.status
        if kind == LABEL and label.pair.known not in (None, 0.5):
            kind = "right" if (label.preference > 0.5) == (label.pair.known > 0.5) else "wrong"
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES:
            pair = label.pair
            example = {"prompt": as_text(pair.prompt)[-LONGEST:], "first": pair.first[:LONGEST]}
            kept.append({**example, "second": pair.second[:LONGEST], "preference": label.preference})

    def summary(self) -> dict:
        """counts, agreement, position, length, mass, p_chosen, examples; None where there is nothing to tell."""
        table = np.array(self.numbers, dtype=float).reshape(-1, len(FIELDS) + 1)
        preference, first, second, mass, known, longer = table.T
        read = ~np.isnan(preference)
        outcome = np.where(read, (preference > 0.5) + 0.5 * (preference == 0.5), np.nan)
        decided = read & (outcome != 0.5) & ~np.isnan(known) & (known != 0.5)
        return {
            "counts": self.counts,
            "agreement": _agreement(outcome[decided], known[decided]),
            "position": _position(first, second, np.abs(longer)),
            "length": length_bias(outcome[read], longer[read]) if read.any() else None,
            "mass": _histogram(mass, (0, 1)),
            "p_chosen": _histogram(np.maximum(preference, 1 - preference)[read], (0.5, 1)),
            "examples": self.examples,
        }


def _agreement(outcome: np.ndarray, known: np.ndarray) -> dict | None:
    """Share of decided pairs on which judge and known label agree, Wilson interval, Cohen's kappa."""
    if not len(outcome):
        return None
    agreeing = int((outcome == known).sum())
    interval = wilson_interval(agreeing, len(outcome))
    return {
        "pairs": len(outcome),
        "share": agreeing / len(outcome),
        "ci": interval,
        "kappa": cohen_kappa(outcome, known),
    }


def _position(first: np.ndarray, second: np.ndarray, lengths: np.ndarray) -> dict | None:
    """Position bias over displays, in probability; order flips; the bias where lengths differ little, more and most."""
    seen = np.concatenate([first, second])
    shown_first = np.arange(len(seen)) < len(first)
    read, both = ~np.isnan(seen), ~np.isnan(first) & ~np.isnan(second)
    if not read.any():
        return None
    outcomes = (seen > 0.5) + 0.5 * (seen == 0.5)
    pairs = np.tile(np.arange(len(first)), 2)[read]
    bias = position_bias(outcomes[read], shown_first[read], pairs)
    bias["position_bias"] = position_bias(seen[read], shown_first[read])["position_bias"]
    flips = order_flip_rate(outcomes[: len(first)][both], outcomes[len(first) :][both])
    parts = np.array_split(np.flatnonzero(both)[np.argsort(lengths[both], kind="stable")], 3)
    by_length = [float((first[part] - second[part]).mean()) if len(part) else None for part in parts]
    return {**bias, "order_flip_rate": flips, "position_bias_by_length_difference": by_length}


def _histogram(values: np.ndarray, limits: tuple[float, float]) -> dict | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    counts, edges = np.histogram(np.clip(values, *limits), BINS, limits)
    return {"counts": counts.tolist(), "edges": edges.round(3).tolist(), "mean": float(values.mean())}


def markdown(report: dict) -> str:
    """The report as Markdown."""
    counts, cost = report["counts"], report["cost"]
    usd = "unknown" if cost["usd"] is None else f"${cost['usd']:.4f}"
    tokens = f"{cost['prompt_tokens']:,} prompt and {cost['completion_tokens']:,} completion tokens"
    parts = [f"# Labels by {report['judge']}", ""]
    parts += rows(list(counts), [list(counts.values())])
    parts += ["", f"Answers on record: {cost['requests']:,}, {tokens}, {usd}. {report['seconds']} s.", ""]
    parts += [f"- {sentence}" for sentence in report["notices"]]
    parts += _agreement_text(report["agreement"])
    parts += ["", "## What else it reacts to", "", *_biases(report["position"], report["length"])]
    for name, title in (("mass", "Label mass"), ("p_chosen", "p_chosen")):
        if report[name]:
            edges = report[name]["edges"]
            bins = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges)]
            parts += ["", f"## {title} (mean {report[name]['mean']:.3f})", "", *rows(bins, [report[name]["counts"]])]
    parts += ["", "## Examples", ""]
    for kind, examples in report["examples"].items():
        body = [[_number(e["preference"]), e["prompt"], e["first"], e["second"]] for e in examples]
        parts += [f"### {kind}", "", *rows(["P(first)", "prompt", "first", "second"], body), ""]
    return "\n".join(parts) + "\n"


def _number(value) -> str:
    return "" if value is None else f"{value:.3f}"


def _agreement_text(agreement: dict | None) -> list[str]:
    if agreement is None:
        return ["", "No human or gold labels to compare with."]
    low, high = agreement["ci"]
    kappa = "undefined" if agreement["kappa"] is None else f"{agreement['kappa']:.3f}"
    share = f"{agreement['share']:.1%} (95 % interval {low:.1%} to {high:.1%})"
    return ["", f"Agrees with human or gold labels on {share} of {agreement['pairs']:,} decided pairs, kappa {kappa}."]


def _biases(position: dict | None, length: dict | None) -> list[str]:
    lines = []
    if position and position["position_bias"] is not None:
        by_length = ", ".join(map(_number, position["position_bias_by_length_difference"]))
        lines += [
            f"Position bias {position['position_bias']:+.3f} (0 none, 1 always the first shown), the first shown is "
            f"chosen in {position['first_choice_rate']:.1%}, order flips {_number(position['order_flip_rate'])}; "
            f"bias by difference of length, small to large: {by_length}."
        ]
    if length and length["longer_wins"] is not None:
        low, high = length["longer_wins_ci"]
        lines += [f"The longer reply wins {length['longer_wins']:.1%} ({low:.1%} to {high:.1%})."]
    return lines or ["Nothing: it sees no order, and all replies are of one length."]
