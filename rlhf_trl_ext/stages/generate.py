"""One sampling run: load the policy, its reference and the scores, write samples.jsonl."""

import json
import logging
from collections.abc import Callable

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm
from transformers import set_seed

from rlhf_trl_ext.callbacks import held_out
from rlhf_trl_ext.configuration.checks import as_config_error, build
from rlhf_trl_ext.files import finite, written
from rlhf_trl_ext.judging.prompt import as_text
from rlhf_trl_ext.models.perplexity import perplexity
from rlhf_trl_ext.models.sampling import sample
from rlhf_trl_ext.rewards.model import RewardModel
from rlhf_trl_ext.stages.stage import Stage, exclusive
from rlhf_trl_ext.trainers.parts.signature import check_columns

logger = logging.getLogger(__name__)
OBJECTIVE = "rewards/"  # before the names of several rewards in a row of samples, as in TRL's logs


def generate(config: DictConfig) -> dict:
    """Write `samples.jsonl` into the stage's folder unless it is there already; returns the stage's record."""
    stage = Stage(config)
    if stage.result:
        return stage.result
    model = build(config.model, "model", model_name_or_path=config.policy)
    dataset = build(config.dataset, "dataset")
    with exclusive(stage.folder, wait=not stage.overwrites):
        return stage.result or _generate(stage, model, dataset)


def _generate(stage: Stage, model, dataset) -> dict:
    config = stage.config
    stage.begin()
    set_seed(config.seed)
    with as_config_error("dataset"):
        tokenizer = model.tokenizer(config.policy)
        held_out_prompts = dataset.load("prompts", "evaluation", tokenizer)
        if held_out.chooses(config):  # the checkpoint, on prompts that are not reported on
            places = held_out.prompts_to_score(config, len(held_out_prompts))
            held_out_prompts = held_out_prompts.select(range(places.start))
        columns = held_out_prompts[: config.samples.max_prompts]
    prompts = columns.pop("prompt")
    device = "cpu" if config.args.get("use_cpu") or not torch.cuda.is_available() else "cuda"
    policy, reference = (model.policy(path, device_map=device) for path in (config.policy, config.reference))
    scores = _rewards(config, model.dtype, device)
    if gold := getattr(dataset, "gold", None):
        scores["gold_reward"] = gold
    if config.get("held_out"):
        scores["held_out_reward"] = _held_out(config)
    check_columns(list(scores.values()), ["prompt", *columns])
    keys = ("max_new_tokens", "temperature", "batch_size", "compiled_generation")
    options = {key: config.samples[key] for key in keys}
    rows = sample(policy, reference, tokenizer, prompts, scores, **options, columns=columns)
    demonstrations = _demonstrations(dataset, tokenizer, config.samples.max_prompts)
    known = {as_text(row["prompt"]): row["completion"][0]["content"] for row in demonstrations}
    path = stage.folder / "samples.jsonl"
    with written(path) as file:
        for row in tqdm(rows, total=len(prompts), desc=stage.name, unit="sample"):
            demonstration = known.get(as_text(row["prompt"]))
            row.setdefault("reward", _mean([row[name] for name in scores if name.startswith(OBJECTIVE)]))
            row |= {"demonstration": demonstration} if demonstration else {}
            file.write(json.dumps(finite(row), allow_nan=False) + "\n")
    perplexities = perplexity(policy, tokenizer, demonstrations, config.samples.batch_size) if demonstrations else {}
    return stage.finish({"prompts": len(prompts), "file": str(path), **perplexities})


def _demonstrations(dataset, tokenizer, count: int) -> list[dict]:
    """Held-out demonstrations, or none where the dataset has none."""
    try:
        return dataset.load("demonstrations", "evaluation", tokenizer).to_list()[:count]
    except ValueError as error:
        logger.warning("no perplexity: %s", error)
        return []


def _rewards(config: DictConfig, dtype: str, device: str) -> dict[str, Callable]:
    """`reward`, or where there are several objectives `rewards/<name>` for each, by `reward.names`.

    A path or hub id becomes a reward model.
    """
    functions = [
        RewardModel(function, config.samples.batch_size, dtype, device) if isinstance(function, str) else function
        for function in instantiate(config.reward.functions, _convert_="all")
    ]
    if len(functions) == 1:
        return {"reward": functions[0]}
    names = config.reward.get("names") or range(1, len(functions) + 1)
    return {f"{OBJECTIVE}{name}": function for name, function in zip(names, functions, strict=True)}


def _held_out(config: DictConfig) -> Callable:
    """The rewards of `held_out`, which no policy trains for, as one: their mean."""
    functions = instantiate(config.held_out.functions, _convert_="all")

    def mean(**batch):
        return [_mean(list(values)) for values in zip(*(function(**batch) for function in functions), strict=True)]

    return mean


def _mean(values: list[float | None]) -> float | None:
    """Of several objectives: their mean; None where one gave none."""
    return None if None in values or not values else sum(values) / len(values)
