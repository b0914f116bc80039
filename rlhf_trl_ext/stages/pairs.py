"""Pairs of replies to label: sampled from policies, read from files, or those of a data set."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm
from transformers import set_seed

from rlhf_trl_ext.configuration.checks import as_config_error
from rlhf_trl_ext.data import reading
from rlhf_trl_ext.files import written
from rlhf_trl_ext.judging.labelling import Pair
from rlhf_trl_ext.judging.prompt import as_text
from rlhf_trl_ext.models.sampling import complete
from rlhf_trl_ext.rewards.gold import content_of
from rlhf_trl_ext.stages.identity import built_folder, digest
from rlhf_trl_ext.stages.sources import source

PAIRS = (("chosen", "rejected"), ("first", "second"))  # columns of the two replies of a row


class Pairs:
    """Pairs in a file of JSON lines, read anew at each pass, so that memory does not grow with their number."""

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            self.count = sum(1 for _ in file)

    def __call__(self) -> Iterator[Pair]:
        with self.path.open() as file:
            yield from (Pair(**json.loads(line)) for line in file)


def write_pairs(config: DictConfig, model, dataset, path: Path) -> Pairs:
    """Write the pairs of `config.pairs`, the replies of each in the order of their text.

    pairs.policies: folders, each gives pairs.completions replies to every prompt; all replies to a prompt are paired
    with each other. pairs.files: what `launchers.generate` wrote, or rows with chosen and rejected, first and second.
    Neither: the data set's own pairs, whose labels are then known.
    Raises ValueError for rows without pairs, and for no pairs at all.
    """
    if config.pairs.policies and config.pairs.files:
        raise ValueError("pairs.policies and pairs.files are both given: give one of them.")
    if config.pairs.policies:
        pairs = _paired(_sampled(config, model, dataset))
    elif config.pairs.files:
        pairs = _read(list(config.pairs.files))
    else:
        with as_config_error():
            tokenizer = model.tokenizer(model.checkpoint(built_folder(config)))
            rows = dataset.load("preferences", config.pairs.split, tokenizer)
        pairs = (Pair(r["prompt"], content_of(r["chosen"]), content_of(r["rejected"]), 1.0) for r in rows)
    gold = None if config.pairs.files else getattr(dataset, "gold", None)
    with written(path) as file:
        for pair in itertools.islice(pairs, config.pairs.max_pairs):
            file.write(json.dumps(_by_gold(pair, gold).ordered()._asdict()) + "\n")
    written_pairs = Pairs(path)
    if not written_pairs.count:
        raise ValueError("there is no pair to label: give pairs.policies, pairs.files, or a dataset with preferences.")
    return written_pairs


def replies(config: DictConfig, model, dataset) -> list[tuple]:
    """(prompt, reply) of pairs.policies or pairs.files. Raises ValueError for empty replies, and for none."""
    if config.pairs.policies:
        sampled = [(prompt, text) for prompt, texts in _sampled(config, model, dataset) for text in texts]
    else:
        sampled = [(row["prompt"], content_of(row.get("completion") or "")) for _, row in _records(config.pairs.files)]
    if not sampled or not all(reply.strip() for _, reply in sampled):
        raise ValueError(
            "replies to revise are missing or empty: give pairs.policies, or pairs.files with completions."
        )
    return sampled[: config.pairs.max_pairs]


def _by_gold(pair: Pair, gold) -> Pair:
    """The pair with the label of the gold reward, where there is one."""
    if gold is None:
        return pair
    first, second = gold([pair.prompt] * 2, [[{"role": "assistant", "content": text}] for text in pair[1:3]])
    return pair._replace(known=(first > second) + 0.5 * (first == second))


def _paired(rows) -> Iterator[Pair]:
    """All pairs of the replies to each prompt, prompts in order."""
    for prompt, replies in rows:
        yield from (Pair(prompt, a, b) for a, b in itertools.combinations(replies, 2))


def _sampled(config: DictConfig, model, dataset) -> Iterator[tuple]:
    """(prompt, replies) from every policy in turn; a policy's replies are kept and used again."""
    settings = config.pairs
    replies: list[list[str]] = []
    for policy in settings.policies:
        with as_config_error():
            tokenizer = model.tokenizer(policy)
            view = dataset.load(settings.view, settings.split, tokenizer)
        prompts = list(view["prompt"])[: settings.max_prompts]
        kept = [
            policy,
            settings.completions,
            config.seed,
            *(settings[key] for key in ("max_new_tokens", "temperature")),
        ]
        name = digest([*kept, settings.batch_size, prompts, source("rlhf_trl_ext.stages.pairs")])
        path = Path(config.output_root) / "completions" / f"{name}.jsonl"
        if not path.exists():
            _sample(config, model, tokenizer, policy, prompts, path)
        texts = [json.loads(line) for line in path.read_text().splitlines()]
        replies = [a + b for a, b in zip(replies or [[]] * len(prompts), texts, strict=True)]
    yield from zip(prompts, replies, strict=True)


def _sample(config: DictConfig, model, tokenizer, policy: str, prompts: list, path: Path) -> None:
    """Write one line a prompt: its replies."""
    settings = config.pairs
    device = "cpu" if config.args.get("use_cpu") or not torch.cuda.is_available() else "cuda"
    set_seed(config.seed)
    loaded = model.policy(policy, device_map=device)
    step = max(1, settings.batch_size // settings.completions)
    with written(path) as file:
        for start in tqdm(range(0, len(prompts), step), desc=f"completions of {policy}", unit="batch"):
            batch = [prompt for prompt in prompts[start : start + step] for _ in range(settings.completions)]
            texts = complete(loaded, tokenizer, batch, settings.max_new_tokens, settings.temperature).texts
            for row in range(0, len(texts), settings.completions):
                file.write(json.dumps(texts[row : row + settings.completions]) + "\n")


def _read(files: list[str]) -> Iterator[Pair]:
    """Pairs of files: rows with two replies are pairs, rows with one are paired with the others of their prompt."""
    alone: dict[str, tuple[object, list[str]]] = {}
    for _, row in _records(files):
        pair = _pair(row)
        if pair is not None:
            yield pair
        else:
            alone.setdefault(as_text(row["prompt"]), (row["prompt"], []))[1].append(content_of(row["completion"]))
    yield from _paired(alone.values())


def _records(files: list[str]) -> Iterator[tuple[str, dict]]:
    """(place, row) of files and folders. Raises ValueError for a row that holds no reply."""
    for file in files:
        for name, path in reading.local_files(file, "pairs.files").items():
            for where, row in reading.local_records(name, path):
                if not _is_whole(row):
                    raise ValueError(
                        f"pairs.files={file}, {where}: a row has a prompt, and chosen and rejected, first and "
                        "second, or completion."
                    )
                yield where, row


def _is_whole(row) -> bool:
    """Whether a row has a prompt, and a reply or a pair of them, each as text or messages."""
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str | list):
        return False
    names = next((names for names in (*PAIRS, ("completion",)) if all(name in row for name in names)), ())
    try:
        return bool(names) and all(isinstance(content_of(row[name]), str) for name in names)
    except (TypeError, KeyError, IndexError):
        return False


def _pair(row: dict) -> Pair | None:
    for names, known in zip(PAIRS, (1.0, row.get("known")), strict=True):
        if all(name in row for name in names):
            return Pair(row["prompt"], *(content_of(row[name]) for name in names), known)
    return None
