"""Corpus: one source of real data, from raw records to the rows of a view."""

import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from rlhf_trl_ext.data import reading, schema, splits
from rlhf_trl_ext.data.folders import chosen_files
from rlhf_trl_ext.data.forms import Forms, advice
from rlhf_trl_ext.data.schema import BadRow, NoRow, Row
from rlhf_trl_ext.data.tally import Tally
from rlhf_trl_ext.quantities import Seed

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

PROGRESS_DELAY = 2  # seconds before a progress bar appears


class Corpus:
    """Records of a hub data set or of local files, turned into rows by `convert.rows(record, view)`.

    convert: a source of this package; its `rows` raises BadRow for a malformed record, NoRow for one without a row.
    None: `forms.Forms(form, columns)`, which knows what others write.
    hub: a hub data set, or {view: hub data set} where a source keeps its views in several repositories.
    hub_split, hub_revision, hub_file: of that data set; a file of its repository is read like a local one.
    path: local file or folder to read instead of the hub, as `reading.local_files` takes it. subset: of a folder that
    holds several data sets: a split (of a DatasetDict, or by the files' names; by default train), an entry of
    LLaMA-Factory's dataset_info.json.
    max_samples: at most so many rows of any split, counted after all filters; fewer samples are a subset of more.
    max_tokens: of the whole conversation, the longer of chosen and rejected, in the tokenizer's chat template.
    max_prompt_tokens: of the prompt with the opening of the reply.
    max_bad_fraction: of the records, in [0, 1], that may be malformed.
    shares: of the prompts for sft, reward, rl and evaluation, where several stages share the data; with the seed they
    decide the split of a prompt. None: a tenth is for evaluation, and a stage trains on all others.
    Raises ValueError for a value that is not allowed and for a path without data.
    """

    def __init__(
        self,
        convert: Any = None,
        hub: str | dict[str, str] | None = None,
        hub_split: str = "train",
        hub_revision: str | None = None,
        hub_file: str | None = None,
        path: str | None = None,
        max_samples: int | None = None,
        max_tokens: int | None = None,
        max_prompt_tokens: int | None = None,
        max_bad_fraction: float = 0.01,
        shares: dict[str, float] | None = None,
        seed: Seed = 0,
        form: str | None = None,
        columns: dict[str, str] | None = None,
        subset: str | None = None,
    ) -> None:
        limits = {"max_samples": max_samples, "max_tokens": max_tokens, "max_prompt_tokens": max_prompt_tokens}
        for key, value in limits.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{key}={value} is not allowed: give a whole number >= 1, or null for no limit.")
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction={max_bad_fraction} is not allowed: give a number in [0, 1].")
        views = set(schema.VIEWS) - {"unpaired"}
        if isinstance(hub, dict) and set(hub) != views:
            raise ValueError(f"hub={hub} does not name one data set for each of {', '.join(sorted(views))}: do so.")
        if shares is not None:
            splits.check_shares(shares)
        if path is not None and (hub_split != "train" or hub_revision is not None):
            read = f"hub_split={hub_split}" if hub_split != "train" else f"hub_revision={hub_revision}"
            raise ValueError(f"path={path} with {read}: local files have neither; leave it out.")
        self.files, columns, tags = (None, columns, None) if path is None else chosen_files(path, subset, columns)
        self.path, self.shares, self.seed = path, shares and dict(shares), seed
        self.convert = Forms(form, columns, tags) if convert is None else convert
        self.hub, self.hub_split, self.hub_revision, self.hub_file = hub, hub_split, hub_revision, hub_file
        self.max_samples, self.max_tokens, self.max_prompt_tokens = max_samples, max_tokens, max_prompt_tokens
        self.max_bad_fraction = max_bad_fraction

    def load(
        self,
        view: Literal["demonstrations", "preferences", "prompts", "unpaired"],
        split: Literal["train", "evaluation"] = "train",
        tokenizer: Any = None,
    ) -> "Dataset":
        """The rows of a view, in an order that is a hash of seed and row: files and their order do not matter.

        split: "train" gives demonstrations of the sft share, preferences of the reward share and prompts of the rl
        share; without shares, all that is not held out. "evaluation" gives any view of the evaluation share. The view
        "unpaired" gives preferences where the records are pairs, which TRL takes apart. The same rows are kept once; of
        prompts that differ in case or white space only, one. tokenizer: needed for max_tokens and max_prompt_tokens.
        Raises ValueError if too many records are bad or no row is left, ConnectionError if the hub is out of reach.
        """
        for key, value, allowed in (("view", view, tuple(schema.VIEWS)), ("split", split, ("train", "evaluation"))):
            if value not in allowed:
                raise ValueError(f"{key}={value} is unknown: choose one of {', '.join(allowed)}.")
        if self.hub is None and self.path is None:
            raise ValueError("dataset.path=null: give dataset.path=<file or folder>, or dataset.hub=<name on the hub>.")
        self._check_tokenizer(tokenizer)
        tally = Tally()
        rows = self._distinct(self._rows(view, split, tally), view, tally)
        kept = list(itertools.islice(self._short_enough(rows, tokenizer, tally), self.max_samples))
        tally.rows = len(kept)
        tally.surplus = len(rows) - tally.too_long - len(kept)
        form = getattr(getattr(self.convert, "recognised", None), "name", None)
        source = f"{self._source(view)}{f' form={form}' if form else ''}"
        summary = f"{source} view={view} split={split} ({self._split(view, split)}): {tally.describe()}"
        if not kept:
            raise ValueError(
                f"{summary}: nothing to train on; mend or add data, or change the shares and token limits."
            )
        logger.log(logging.WARNING if tally.bad else logging.INFO, summary)

        if split == "train" and len({row.get("label") for row in kept}) == 1 and "label" in kept[0] and len(kept) > 1:
            raise ValueError(f"{summary}: all labels are {kept[0]['label']}; give replies of both kinds, or use SFT.")

        from datasets import Dataset

        return Dataset.from_list(kept, features=schema.features(kept[0]))

    def _split(self, view: str, split: str) -> str:
        """What the split is, in words."""
        if split == "evaluation":
            share = splits.HELD_OUT if self.shares is None else self.shares.get("evaluation", 0)
            return f"the {share:.0%} of the prompts that are held out"
        if self.shares is None:
            return f"all prompts but the {splits.HELD_OUT:.0%} that are held out"
        bucket = splits.VIEW_BUCKETS[view]
        return f"the {bucket} share, {self.shares.get(bucket, 0):.0%} of the prompts"

    def _bucket(self, row: Row, name: str) -> bool:
        key = row.get("prompt") or [{"role": "user", "content": row["text"]}]
        if self.shares is not None:
            return splits.bucket_of(key, self.shares, self.seed) == name
        bucket = splits.bucket_of(key, {"sft": 1 - splits.HELD_OUT, "evaluation": splits.HELD_OUT}, self.seed)
        return (bucket == "evaluation") == (name == "evaluation")

    def _source(self, view: str) -> str:
        if self.path is not None:
            return f"path={self.path}"
        return f"hub={self.hub[view] if isinstance(self.hub, dict) else self.hub}"

    def _check_tokenizer(self, tokenizer: Any) -> None:
        limits = {"max_tokens": self.max_tokens, "max_prompt_tokens": self.max_prompt_tokens}
        for key, value in limits.items():
            if value is not None and getattr(tokenizer, "chat_template", None) is None:
                problem = "no tokenizer" if tokenizer is None else "a tokenizer without chat template"
                raise ValueError(f"{key}={value} meets {problem}: give one with a chat template, or {key}=null.")

    def _records(self, view: str) -> Iterator[reading.Located]:
        if self.files is not None:
            return itertools.chain.from_iterable(itertools.starmap(reading.local_records, self.files.items()))
        hub = self.hub[view] if isinstance(self.hub, dict) else self.hub
        return reading.hub_records(hub, self.hub_split, self.hub_revision, self.hub_file)

    def _rows(self, view: str, split: str, tally: Tally) -> list[Row]:
        """The converted rows of the split, before de-duplication. Raises ValueError if too many records are bad."""
        bucket = splits.VIEW_BUCKETS[view] if split == "train" else "evaluation"
        rows = []
        for location, record in _progress(self._records(view), "reading", "record"):
            tally.read += 1
            try:
                converted = self._convert(record, view)
            except BadRow as error:
                tally.bad[error.reason].append(location)
            except NoRow as error:
                tally.absent[error.reason] += 1
            except ValueError as error:
                raise ValueError(f"{location}: {error}") from error
            else:
                mine = [row for row in converted if self._bucket(row, bucket)]
                tally.other_splits += len(converted) - len(mine)
                rows.extend(mine)
        if tally.bad_records > self.max_bad_fraction * tally.read:
            any_form = isinstance(self.convert, Forms) and self.convert.form is None
            other = None if any_form else advice(itertools.islice(self._records(view), 5), view)
            raise ValueError(
                f"max_bad_fraction={self.max_bad_fraction} is exceeded by {self._source(view)}: {tally.bad_records} of "
                f"{tally.read} records are bad: {tally.bad_by_reason()}; "
                f"{other or 'mend them, choose the dataset=... that reads this format'}, "
                "or raise dataset.max_bad_fraction."
            )
        return rows

    def _convert(self, record: Any, view: str) -> list[Row]:
        if isinstance(record, BadRow):
            raise record
        if not isinstance(record, dict):
            raise BadRow(f"wrong type: {type(record).__name__} instead of an object")
        return list(self.convert.rows(record, view))

    def _distinct(self, rows: list[Row], view: str, tally: Tally) -> list[Row]:
        """The rows in the order of their hash, each once."""
        by_hash = {hashlib.sha256(f"{self.seed}\n{json.dumps(row)}".encode()).digest(): row for row in rows}
        distinct = {}
        for digest, row in sorted(by_hash.items()):
            key = digest
            if view == "prompts" and "prompt" in row:
                key = tuple((turn["role"], splits.normalise(turn["content"])) for turn in row["prompt"])
            distinct.setdefault(key, row)
        tally.duplicates = len(rows) - len(distinct)
        return list(distinct.values())

    def _short_enough(self, rows: list[Row], tokenizer: Any, tally: Tally) -> Iterator[Row]:
        """The rows within both token limits, measured only as far as they are asked for."""
        if self.max_tokens is None and self.max_prompt_tokens is None:
            yield from rows
            return
        for row in _progress(rows, "measuring", "row"):
            if self._fits(row, tokenizer):
                yield row
            else:
                tally.too_long += 1

    def _fits(self, row: Row, tokenizer: Any) -> bool:
        def tokens(turns: list[schema.Turn], opening: bool) -> int:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opening)
            return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

        if "prompt" not in row:
            length = len(tokenizer(row["text"], add_special_tokens=False, verbose=False)["input_ids"])
            return self.max_tokens is None or length <= self.max_tokens
        prompt, *replies = (value for value in row.values() if isinstance(value, list))
        if self.max_prompt_tokens is not None and tokens(prompt, True) > self.max_prompt_tokens:
            return False
        if self.max_tokens is None:
            return True
        whole = [tokens(prompt + reply, False) for reply in replies] or [tokens(prompt, True)]
        return max(whole) <= self.max_tokens


def _progress(items: Any, doing: str, unit: str) -> Iterator:
    """A progress bar on the terminal's stderr, for what takes longer than PROGRESS_DELAY; none in a log file."""
    from tqdm import tqdm

    return tqdm(items, desc=doing, unit=f" {unit}", delay=PROGRESS_DELAY, disable=None, leave=False)
