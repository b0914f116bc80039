"""Blind pairwise comparison by people: which pair is next, what was said, how far people agree, the labels."""

import hashlib
import json
import os
import random
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.verdicts.agreement import agreement
from evaluation.verdicts.samples import check_pairs
from rlhf_trl_ext.data import schema
from rlhf_trl_ext.data.reading import local_records
from rlhf_trl_ext.data.samples import Samples
from rlhf_trl_ext.files import write
from rlhf_trl_ext.judging.verdicts import Verdict

ANSWERS = {"first": 1.0, "tie": 0.5, "second": 0.0}  # outcome of the reply that was shown first
RECORD, LABELS, OUTCOMES = "annotations.jsonl", "labels.jsonl", "outcomes.jsonl"


@dataclass(frozen=True)
class Item:
    """A pair as an annotator sees it. swapped: whether the policy's reply is the second one."""

    policy: str
    pair: int
    prompt: str
    first: str
    second: str
    swapped: bool


class Annotation:
    """The pairs of policies and a baseline that people compare, and what they said so far.

    Every annotator sees the same random choice of pairs in an order of their own, each pair in a random order of its
    own, and never which policy wrote what. What is said is one JSON line in `annotations.jsonl` of `folder`, on
    the disk before the next pair is shown, so that everything continues where it ended.

    max_pairs: of all, which of them by the seed; None: all. Raises ValueError for samples of different prompts, and for
    a folder with annotations of other samples.
    """

    def __init__(
        self, baseline: Samples, policies: dict[str, Samples], folder: Path, max_pairs: int | None = None, seed: int = 0
    ):
        for rows in policies.values():
            check_pairs(rows, baseline)
        self.baseline, self.policies, self.folder, self.seed = baseline, policies, Path(folder), seed
        pairs = [(name, pair) for name in policies for pair in range(len(baseline)) if self._differs(name, pair)]
        self.pairs = random.Random(seed).sample(pairs, len(pairs) if max_pairs is None else min(max_pairs, len(pairs)))
        self.outcomes: dict[str, dict[tuple[str, int], float]] = {}  # annotator -> outcomes of the policy
        self._lock = threading.Lock()
        if (self.folder / RECORD).exists():
            self._resume()

    def _differs(self, policy: str, pair: int) -> bool:
        return self.policies[policy][pair]["completion"] != self.baseline[pair]["completion"]

    def _digest(self, policy: str, pair: int) -> str:
        replies = [self.policies[policy][pair]["completion"], self.baseline[pair]["completion"]]
        return hashlib.sha256(json.dumps(replies).encode()).hexdigest()[:16]

    def _resume(self) -> None:
        for place, row in local_records(RECORD, self.folder / RECORD):
            try:
                key, outcome = (row["policy"], row["pair"]), row["outcome"]
                known = key[0] in self.policies and self._digest(*key) == row["replies"]
                self.outcomes.setdefault(row["annotator"], {})[key] = outcome
            except (KeyError, TypeError, IndexError):
                known = False
            if not known:
                raise ValueError(f"{self.folder}/{place} is no annotation of these samples; give another output.")

    def next(self, annotator: str) -> Item | None:
        """The pair that an annotator sees now; None when all are done."""
        done = self.outcomes.get(annotator, {})
        order = random.Random(f"{self.seed} {annotator}").sample(self.pairs, len(self.pairs))
        for policy, pair in order:
            if (policy, pair) not in done:
                swapped = random.Random(f"{self.seed} {annotator} {policy} {pair}").random() < 0.5
                own, other = self.policies[policy][pair]["completion"], self.baseline[pair]["completion"]
                first, second = (other, own) if swapped else (own, other)
                return Item(policy, pair, _shown(self.baseline[pair]["prompt"]), first, second, swapped)
        return None

    def progress(self, annotator: str) -> tuple[int, int]:
        """Pairs that an annotator has compared, of how many."""
        return len(self.outcomes.get(annotator, {}).keys() & set(self.pairs)), len(self.pairs)

    def answer(self, annotator: str, item: Item, word: str) -> None:
        """Keep what an annotator says of a pair, one of `ANSWERS`; a pair that is done already stays as it is."""
        outcome = 1 - ANSWERS[word] if item.swapped else ANSWERS[word]
        key = (item.policy, item.pair)
        row = {"annotator": annotator, "policy": item.policy, "pair": item.pair, "outcome": outcome}
        row |= {"shown_first": not item.swapped, "replies": self._digest(*key)}
        with self._lock:
            if key in self.outcomes.setdefault(annotator, {}):
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / RECORD).open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.outcomes[annotator][key] = outcome
            self._write_labels()

    def means(self) -> dict[tuple[str, int], list[float]]:
        """Outcomes of a pair by everyone who compared it."""
        outcomes: dict[tuple[str, int], list[float]] = {}
        for own in self.outcomes.values():
            for key, outcome in own.items():
                outcomes.setdefault(key, []).append(outcome)
        return outcomes

    def _write_labels(self) -> None:
        """`labels.jsonl` for dataset=labelled, without ties, and `outcomes.jsonl` for launchers.evaluate labels=."""
        labels, outcomes = [], []
        for (policy, pair), given in sorted(self.means().items()):
            mean = sum(given) / len(given)
            outcomes.append({"policy": policy, "pair": pair, "outcome": 0.5 if mean == 0.5 else float(mean > 0.5)})
            if mean == 0.5:
                continue
            texts = [self.policies[policy][pair]["completion"], self.baseline[pair]["completion"]]
            chosen, rejected = texts if mean > 0.5 else texts[::-1]
            prompt = self.baseline[pair]["prompt"]
            row = {"prompt": [schema.user(prompt)] if isinstance(prompt, str) else prompt}
            row |= {"chosen": [schema.assistant(chosen)], "rejected": [schema.assistant(rejected)]}
            labels.append({**row, "p_chosen": max(mean, 1 - mean), "people": len(given)})
        for name, rows in ((LABELS, labels), (OUTCOMES, outcomes)):
            write(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))

    def agreement(self) -> dict:
        """`kappa`: of every two annotators, as `agreement`; `alpha`: Krippendorff's of all, ordinal, None without two.

        alpha by the library krippendorff; None as well where everybody said the same of everything.
        """
        verdicts = {
            name: {("policies", "baseline"): [Verdict(own.get(key)) for key in self.pairs]}
            for name, own in self.outcomes.items()
        }
        table = np.array([[own.get(key, np.nan) for key in self.pairs] for own in self.outcomes.values()])
        return {"kappa": agreement(verdicts), "alpha": _alpha(table)}


def _alpha(table: np.ndarray) -> float | None:
    """table: `(annotators, pairs)`, nan where nothing was said."""
    import krippendorff

    twice = (~np.isnan(table)).sum(0) > 1 if len(table) > 1 else np.array([])
    if not twice.any() or len(np.unique(table[:, twice][~np.isnan(table[:, twice])])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))


def _shown(prompt) -> str:
    """A prompt as text, a conversation turn by turn."""
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def in_words(found: dict) -> list[str]:
    """Sentences on how far annotators agree."""
    words = []
    for row in found["kappa"]:
        kappa = "not defined" if row["kappa"] is None else f"{row['kappa']:.2f}"
        low, high = row["agreement_ci"]
        share = f"agree on {row['agreement']:.0%} ({low:.0%} to {high:.0%}) of {row['pairs']} pairs, kappa {kappa}"
        words.append(f"{' and '.join(row['judges'])} {share}.")
    return words + ([] if found["alpha"] is None else [f"Krippendorff's alpha of all: {found['alpha']:.2f}."])
