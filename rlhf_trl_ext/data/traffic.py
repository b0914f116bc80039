"""What `launchers.serve` recorded, as a data set: feedback as preferences, KTO rows, soft labels and demonstrations."""

import logging
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf_trl_ext.data import schema, splits
from rlhf_trl_ext.data.schema import BadRow
from rlhf_trl_ext.quantities import Positive, Share

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
RATED_GOOD, RATED_BAD = 4, 2  # of five stars, for KTO rows


class TrafficData:
    """Rows from the feedback in a traffic file; of each person, the last word on an answer counts.

    preferences: an answer over another one to the same prompt, p_chosen the share of people who say so; an edit over
    its original, p_chosen 1; answers with ratings to the same prompt, p_chosen sigmoid(difference / stars).
    unpaired: thumbs, and ratings of 4, 5 and 1, 2. demonstrations: edits. prompts: all that were answered.
    Traffic without chats, with parts that are no text, and answers that were not whole are left out and counted.

    path: the file. policies: only their answers. rest: another data set for the views that are empty here and for the
    held-out rows; without it `evaluation` of the prompts, by their hash, are held out.
    Raises ValueError where no row is left.
    """

    def __init__(
        self,
        path: str | None = None,
        policies: list[str] | None = None,
        rest: Any = None,
        stars: Positive = 1.0,
        evaluation: Share = 0.1,
        seed: int = 0,
    ) -> None:
        if not 0 < evaluation < 1:
            raise ValueError(f"evaluation={evaluation}: a share between 0 and 1 is needed.")
        if path is not None:
            fold(path)
        self.path, self.policies, self.rest, self.stars = path, policies, rest, stars
        self.shares, self.seed = {"reward": 1 - evaluation, "evaluation": evaluation}, seed
        self.gold = getattr(rest, "gold", None)

    def load(
        self,
        view: Literal["demonstrations", "preferences", "prompts", "unpaired"],
        split: Literal["train", "evaluation"] = "train",
        tokenizer: Any = None,
    ) -> "Dataset":
        """Rows in TRL's columns, preferences with p_chosen. How many there are of which feedback is logged."""
        from datasets import Dataset

        if self.rest is not None and split == "evaluation":
            return self.rest.load(view, split, tokenizer)
        if self.path is None:
            raise ValueError("dataset.path has no value: give the traffic file that launchers.serve writes.")
        tally: Counter = Counter()
        rows = [
            row for kind, row in getattr(self, f"_{view}")(self._answers(tally)) if self._in(row, split, kind, tally)
        ]
        logger.info("%s of %s: %s", view, self.path, ", ".join(f"{count} {kind}" for kind, count in tally.items()))
        if not rows and self.rest is not None:
            return self.rest.load(view, split, tokenizer)
        if not rows:
            raise ValueError(f"dataset.path={self.path} has no {view} for split={split}: collect more feedback.")
        return Dataset.from_list(rows)

    def _in(self, row: dict, split: str, kind: str, tally: Counter) -> bool:
        bucket = splits.bucket_of(row["prompt"], self.shares, self.seed)
        wanted = self.rest is not None or (bucket == "evaluation") == (split == "evaluation")
        tally[f"of {kind}"] += wanted
        return wanted

    def _answers(self, tally: Counter) -> dict[str, dict]:
        """id -> answer, its prompt as clean turns, its feedback by kind and person."""
        from rlhf_trl_ext.serving.traffic import read

        answers = {}
        for row in read(self.path):
            if self.policies is not None and row["policy"] not in self.policies:
                continue
            try:
                if row["status"] != "complete":
                    raise BadRow("left out: not whole")
                if not isinstance(row["prompt"], list):
                    raise BadRow("left out: no chat")
                whole = [*row["prompt"], schema.assistant(row["completion"])]
                row["prompt"] = schema.conversation(whole)[:-1]
            except BadRow as error:
                tally[error.reason] += 1
                continue
            given = row["feedback"]
            row["feedback"] = {(each["kind"], each["person"], self._other(each)): each["value"] for each in given}
            answers[row["id"]] = row
        return answers

    def _other(self, given: dict) -> str | None:
        return given["value"] if given["kind"] == "preferred_over" else None

    def _preferences(self, answers: dict[str, dict]):
        for row in answers.values():
            for (kind, _, _), value in row["feedback"].items():
                if kind == "edit" and value.strip() != row["completion"].strip():
                    yield "edits", _pair(row["prompt"], value, row["completion"], 1.0)
        yield from self._compared(answers)
        yield from self._rated(answers)

    def _compared(self, answers: dict[str, dict]):
        """One row for every two answers that were compared, by the majority; ties of people make none."""
        votes: dict[tuple[str, str], list[int]] = {}
        for own, row in answers.items():
            for kind, _, other in row["feedback"]:
                if kind == "preferred_over" and other in answers and answers[other]["prompt"] == row["prompt"]:
                    pair = tuple(sorted((own, other)))
                    votes.setdefault(pair, []).append(pair.index(own))
        for pair, given in votes.items():
            second = sum(given) / len(given)
            chosen, rejected = (answers[pair[i]] for i in ((1, 0) if second > 0.5 else (0, 1)))
            if second != 0.5 and chosen["completion"].strip() != rejected["completion"].strip():
                share = max(second, 1 - second)
                yield "comparisons", _pair(chosen["prompt"], chosen["completion"], rejected["completion"], share)

    def _rated(self, answers: dict[str, dict]):
        groups: dict[str, list[tuple[float, dict]]] = {}
        for row in answers.values():
            if (stars := _rating(row)) is not None:
                groups.setdefault(str(row["prompt"]), []).append((stars, row))
        for group in groups.values():
            for (a, first), (b, second) in combinations(group, 2):
                (low, rejected), (high, chosen) = sorted([(a, first), (b, second)], key=lambda each: each[0])
                if high > low and chosen["completion"].strip() != rejected["completion"].strip():
                    p_chosen = 1 / (1 + math.exp(-(high - low) / self.stars))
                    yield "ratings", _pair(chosen["prompt"], chosen["completion"], rejected["completion"], p_chosen)

    def _unpaired(self, answers: dict[str, dict]):
        for row in answers.values():
            rated = {"prompt": row["prompt"], "completion": [schema.assistant(row["completion"])]}
            for (kind, _, _), value in row["feedback"].items():
                if kind == "thumb":
                    yield "thumbs", {**rated, "label": value == "up"}
                elif kind == "rating" and (value >= RATED_GOOD or value <= RATED_BAD):
                    yield "ratings", {**rated, "label": value >= RATED_GOOD}

    def _demonstrations(self, answers: dict[str, dict]):
        for row in answers.values():
            for (kind, _, _), value in row["feedback"].items():
                if kind == "edit":
                    yield "edits", {"prompt": row["prompt"], "completion": [schema.assistant(value)]}

    def _prompts(self, answers: dict[str, dict]):
        seen = {str(row["prompt"]): row["prompt"] for row in answers.values()}
        for prompt in seen.values():
            yield "answers", {"prompt": prompt}


def fold(path: str) -> None:
    """Bring what stands beside a traffic file (its write-ahead log) into it: a stage is known by the file's content.

    Raises ValueError for an absent file or another kind of file.
    """
    from rlhf_trl_ext.serving.traffic import connect

    if not Path(path).is_file():
        raise ValueError(f"path={path}: no such file; give the traffic file that launchers.serve writes.")
    connection = connect(Path(path))
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def _rating(row: dict) -> float | None:
    """The mean of the ratings of all people; None without one."""
    values = [value for (kind, _, _), value in row["feedback"].items() if kind == "rating"]
    return sum(values) / len(values) if values else None


def _pair(prompt: list, chosen: str, rejected: str, p_chosen: float) -> dict:
    texts = {"chosen": [schema.assistant(chosen)], "rejected": [schema.assistant(rejected)]}
    return {"prompt": prompt, **texts, "p_chosen": p_chosen}
