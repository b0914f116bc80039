"""Trains every algorithm for a few steps, by its own configuration, on the same rows however many processes there are.

Usage: `every_algorithm.py <folder> <DeepSpeed configuration> <algorithm>...`.
"""

import os
import sys
from pathlib import Path

import torch

ROWS = 8  # in a step, over all processes
LENGTHS = (3, 6, 4, 7)  # of every four completions, so that all processes have as many tokens
SETTINGS = [
    *("model.build.hidden_size=32", "model.build.layers=1", "model.build.heads=2"),
    *(f"dataset.{view}=32" for view in ("demonstrations", "preferences", "prompts", "evaluation")),
    *("args.max_steps=3", "args.logging_steps=1", "args.learning_rate=1e-3", "args.adam_epsilon=1e-5"),
    "args.save_steps=3",
]
ONLINE = [
    "reward.path=null",
    "trainer.reward_funcs=[{_target_: hydra.utils.get_method, path: every_algorithm.score}]",
    "trainer.rollout_func={_target_: hydra.utils.get_method, path: every_algorithm.roll_out}",
    *("args.steps_per_generation=1", "args.num_generations=4", "args.max_completion_length=8"),
]


def roll_out(prompts, trainer):
    """Pseudo-random completions that depend on the prompt and on the place in its group."""
    tokenizer, rows = trainer.processing_class, []
    for row, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(sum(map(ord, prompt[0]["content"])) * 7 + row % 4)
        rows.append(torch.randint(10, 200, (LENGTHS[row % 4],), generator=generator).tolist())
    prompt_ids = [tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in prompts]
    return {"prompt_ids": prompt_ids, "completion_ids": rows, "logprobs": [[0.0] * len(ids) for ids in rows]}


def score(completion_ids, **kwargs):
    return [sum(ids) / len(ids) / 50 for ids in completion_ids]


def overrides(algorithm: str, world: int) -> list[str]:
    settings = [*SETTINGS, f"args.per_device_train_batch_size={ROWS // world}"]
    if algorithm in ("ppo", "grpo", "grpo_offpolicy", "grpo_vi"):
        settings += ONLINE
    if algorithm == "ppo":
        settings += ["args.score_center=0", "args.score_scale=1", "args.num_iterations=2"]
    if algorithm == "grpo_offpolicy":  # all that is kept is drawn: the last batch, whose groups the processes share
        settings += [f"args.buffer_size={2 // world}", "args.replay_ratio=1", "args.max_staleness=1"]
    if algorithm == "dpo_lora":
        settings += ["model.use_peft=true", "model.lora_dropout=0"]
    if algorithm == "grpo_vi":
        settings += ["args.vi_adapt=none", "args.vi_temperature=auto", "args.vi_buffer=2"]
    return settings


def main(folder: str, deepspeed: str, *algorithms: str) -> None:
    from rlhf_trl_ext.configuration.composing import compose_config
    from rlhf_trl_ext.stages.train import train

    world = int(os.environ.get("WORLD_SIZE", "1"))
    for algorithm in algorithms:
        named = [f"algorithm={algorithm.removesuffix('_lora')}", f"deepspeed={deepspeed}", f"output_root={folder}"]
        named += [f"output_dir={Path(folder, algorithm)}"]
        train(compose_config("train", [*named, *(f"++{setting}" for setting in overrides(algorithm, world))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
