"""An off-policy GRPO run whose completions depend on the prompts only: any number of processes samples the same.

Usage: `replay_worker.py <policy> <folder> <settings as JSON>`; started alone or by `accelerate launch`. Every process
writes `<folder>/rank<n>.json`: world size, losses, and for every batch the keys drawn and stored, and the fresh rows.
"""

import json
import sys
from pathlib import Path

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


def main(policy: str, folder: str, settings: str) -> None:
    settings = json.loads(settings)
    resume = settings.pop("resume", None)
    words = [f"lamp {'desk ' * (i % 5)}{i}" for i in range(24)]
    trainer = OffPolicyGRPOTrainer(
        policy,
        score,
        OffPolicyGRPOConfig(output_dir=folder, **settings),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in words]),
        processing_class=AutoTokenizer.from_pretrained(policy),
        rollout_func=roll_out,
    )
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
    world, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    Path(folder, f"rank{rank}.json").write_text(json.dumps({"world": world, "losses": losses, "batches": batches}))


if __name__ == "__main__":
    main(*sys.argv[1:])
