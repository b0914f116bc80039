"""An off-policy GRPO run whose completions depend on the prompts only: any number of processes samples the same.

Usage: `replay_worker.py <policy> <settings by folder, as JSON>`. For every run, one after the other, every process
writes `<folder>/rank<n>.json`: world size, losses, and for every batch the keys drawn and stored, and the fresh rows.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer


def roll_out(prompts, trainer):
    """Pseudo-random completions of 3 to 6 tokens, the four of a group different."""
    tokenizer, rows = trainer.processing_class, []
    for row, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(sum(map(ord, prompt[0]["content"])) * 7 + row % 4)
        rows.append(torch.randint(10, 200, (3 + row % 4,), generator=generator).tolist())
    prompt_ids = [tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in prompts]
    return {"prompt_ids": prompt_ids, "completion_ids": rows, "logprobs": [[0.0] * len(ids) for ids in rows]}


def score(completion_ids, **kwargs):
    return [sum(ids) / len(ids) / 50 for ids in completion_ids]


def run(policy: str, folder: str, settings: dict) -> None:
    """Train once. resume: a checkpoint; without: a file that is removed before."""
    resume, without = settings.pop("resume", None), settings.pop("without", None)
    words = [f"lamp {'desk ' * (i % 5)}{i}" for i in range(24)]
    trainer = OffPolicyGRPOTrainer(
        policy,
        score,
        OffPolicyGRPOConfig(output_dir=folder, **settings),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in words]),
        processing_class=AutoTokenizer.from_pretrained(policy),
        rollout_func=roll_out,
    )
    if without and trainer.accelerator.is_main_process:
        Path(without).unlink()
    trainer.accelerator.wait_for_everyone()
    batches, give, sample = [], trainer._generate_and_score_completions, trainer.buffer.sample
    drawn = []

    def sampled(count):
        found = sample(count)
        drawn.append([group.key for group in found])
        return found

    def given(inputs):
        batch = give(inputs)
        fresh = ~batch["is_replay"]
        advantages = batch["advantages"][fresh]
        advantages = advantages[:, 0] if advantages.dim() == 2 else advantages
        stored = [group.key for group in trainer.buffer.groups]
        fresh_rows = sorted(zip(batch["rewards"][fresh].tolist(), advantages.tolist(), strict=True))
        batches.append({"rows": len(fresh), "drawn": drawn[-1], "stored": stored, "fresh": fresh_rows})
        return batch

    trainer._generate_and_score_completions, trainer.buffer.sample = given, sampled
    trainer.train(resume_from_checkpoint=resume)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    world = trainer.accelerator.num_processes
    write(folder, {"world": world, "losses": losses, "batches": batches})


def write(folder: str, record: dict) -> None:
    Path(folder).mkdir(exist_ok=True)
    Path(folder, f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(record))


def main(policy: str, runs: str) -> None:
    for folder, settings in json.loads(runs).items():
        if settings.pop("refused", False):  # by all processes
            with pytest.raises(ValueError) as error:
                run(policy, folder, settings)
            write(folder, {"refusal": str(error.value)})
        else:
            run(policy, folder, settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
