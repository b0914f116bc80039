"""Completions that were sampled before, by whomever, as groups for the replay buffer."""

import logging

import torch
from torch import Tensor
from trl.trainer.utils import pad, selective_log_softmax, use_adapter

from rlhf_trl_ext.data.reading import local_files, local_records
from rlhf_trl_ext.models.pretrained import load_policy
from rlhf_trl_ext.rewards.gold import content_of
from rlhf_trl_ext.trainers.parts.replay import Group, trimmed

logger = logging.getLogger(__name__)


def read_past(trainer, path: str) -> list[dict[str, Tensor]]:
    """Groups of rows with the same prompt, in the order of the file, as many in each as the trainer samples.

    path: a file or folder of JSON, JSON lines or parquet with `prompt` (text or messages), `completion` (text or
    messages) and `reward`; with `logprobs`, nats per token at the temperature of training, and the `completion_ids`
    that they are of, or else with `args.replay_data_policy`, the model that sampled. Advantages are scaled as
    `args.scale_rewards` says, with `batch` over all of them. Rows beyond a multiple of the group's size are left out
    and counted. Raises ValueError for a row that lacks something or is too long, or if there is no whole group.
    """
    size, prompts = trainer.num_generations, {}
    for name, file in local_files(path).items():
        for place, row in local_records(name, file):
            prompts.setdefault(str(_checked(row, place, trainer)["prompt"]), []).append(row)
    chunks = [rows[start : start + size] for rows in prompts.values() for start in range(0, len(rows), size)]
    whole = [_rows(trainer, chunk) for chunk in chunks if len(chunk) == size]
    if not whole:
        raise ValueError(f"replay_data={path}: no prompt has num_generations={size} completions.")
    left = sum(map(len, chunks)) - len(whole) * size
    logger.info("%s: %d groups; %d rows are left out, as their prompt has no %d", path, len(whole), left, size)
    deviation = torch.cat([rows["rewards"] for rows in whole]).std()
    for rows in whole:
        scale = {"group": rows["rewards"].std(), "batch": deviation}.get(trainer.args.scale_rewards)
        rows["advantages"] = (rows["rewards"] - rows["rewards"].mean()) / (1.0 if scale is None else scale + 1e-4)
    return whole


def _checked(row, place: str, trainer) -> dict:
    if not isinstance(row, dict) or not {"prompt", "reward"} <= row.keys():
        raise ValueError(f"replay_data={place}: prompt and reward are needed in every row.")
    known = {"completion_ids", "logprobs"} <= row.keys() and len(row["completion_ids"]) == len(row["logprobs"])
    if not known and (trainer.args.replay_data_policy is None or "completion" not in row):
        raise ValueError(
            f"replay_data={place}: completion_ids and as many logprobs are needed; or completion, and "
            "replay_data_policy=<the model that sampled it>."
        )
    return row


def _rows(trainer, chunk: list[dict]) -> dict[str, Tensor]:
    tokenizer, end = trainer.processing_class, trainer.processing_class.eos_token_id
    prompt_ids = list(trainer._tokenize_prompts([row["prompt"] for row in chunk])[0])
    completion_ids = []
    for row in chunk:
        known = "logprobs" in row
        tokens = None if known else tokenizer(content_of(row["completion"]), add_special_tokens=False)["input_ids"]
        completion_ids.append(row["completion_ids"] if known else [*tokens, end])
    longest = max(map(len, completion_ids))
    if longest > trainer.max_completion_length:
        raise ValueError(
            f"max_completion_length={trainer.max_completion_length}: replay_data has a completion of {longest} tokens; "
            "give at least as many."
        )
    rows = {"rewards": torch.tensor([float(row["reward"]) for row in chunk])}
    for name, ids, side in (("prompt", prompt_ids, "left"), ("completion", completion_ids, "right")):
        rows[f"{name}_ids"] = _padded(ids, tokenizer.pad_token_id, side)
        rows[f"{name}_mask"] = _padded([[1] * len(row) for row in ids], 0, side)
    if all("logprobs" in row for row in chunk):
        rows["sampling_per_token_logps"] = _padded([row["logprobs"] for row in chunk], 0.0)
    return rows


@torch.no_grad()
def past_groups(trainer, past: list[dict[str, Tensor]]) -> list[Group]:
    """This process's share of what `read_past` returned, without a date, with all log-probs.

    Every process gets equally many groups; the remainder is left out.
    """
    path, device = trainer.args.replay_data_policy, trainer.accelerator.device
    world, policy, groups = trainer.accelerator.num_processes, None, []
    if any("sampling_per_token_logps" not in rows for rows in past):
        policy = load_policy(path, dtype=trainer.model.dtype).to(device).eval()
    mine = list(enumerate(past))[: len(past) // world * world][trainer.accelerator.process_index :: world]
    for number, rows in mine:
        rows = {name: value.to(device) for name, value in rows.items()}
        if "sampling_per_token_logps" not in rows:
            rows["sampling_per_token_logps"] = completion_logprobs(policy, rows, trainer.temperature)
        if trainer.beta != 0.0:
            rows["ref_per_token_logps"] = reference_logprobs(trainer, rows)
        groups.append(Group(trimmed(rows), -1 - number, None))
    return groups


def _padded(rows: list[list], value, side: str = "right") -> Tensor:
    return pad([torch.tensor(row) for row in rows], padding_value=value, padding_side=side)


def completion_logprobs(model, rows: dict, temperature: float) -> Tensor:
    """Log-probs of the completions under any causal language model, at a temperature, `(G, T)`."""
    ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
    mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
    width = rows["completion_ids"].shape[1]
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -width - 1 : -1]
    return selective_log_softmax(logits.float() / temperature, rows["completion_ids"])


def reference_logprobs(trainer, rows: dict) -> Tensor:
    """Log-probs under the trainer's reference: a model of its own, or the policy without its adapter."""
    if trainer.ref_model is not None:
        return completion_logprobs(trainer.ref_model, rows, trainer.temperature)
    model = trainer.accelerator.unwrap_model(trainer.model)
    with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
        return completion_logprobs(trainer.model, rows, trainer.temperature)
