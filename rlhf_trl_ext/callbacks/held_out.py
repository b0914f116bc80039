"""Rewards that only watch an online policy: on held-out prompts, to choose the checkpoint that is kept.

TRL's online trainers evaluate with the reward functions that they train on (huggingface/trl#2959), so the checkpoint
chosen is the one that exploits them best. Here further reward functions, of weight 0, join the trained ones.
"""

import contextlib
import functools
import random

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import TrainerCallback, set_seed


def arguments(config: DictConfig) -> dict:
    """Arguments for `config.args` that `config.held_out` asks for; {} where it asks for nothing.

    What `config.args` states comes first. Evaluation takes place when a checkpoint is saved, as only a checkpoint can
    be kept. Raises ValueError if `save_total_limit` leaves no room for the best checkpoint beside the last.
    """
    if config.get("held_out") is None:
        return {}
    args, held_out = config.args, config.held_out
    if args.get("save_total_limit") == 1 and held_out.args.get("load_best_model_at_end"):
        raise ValueError("save_total_limit=1 keeps the best checkpoint or the last: held_out needs 2 or more.")
    steps = args.get("save_steps", args.get("eval_steps", held_out.every))
    settings = {"eval_strategy": "steps", "save_steps": steps, "eval_steps": steps, **held_out.get("args", {})}
    settings = {name: value for name, value in settings.items() if name not in args}
    weights = args.get("reward_weights") or [1.0] * len(config.trainer.reward_funcs)
    return {**settings, "reward_weights": [*weights, *[0.0] * len(held_out.functions)]}


def reward_functions(config: DictConfig) -> dict:
    """`reward_funcs` for `config.trainer`: the trained ones, then those that watch; {} where none are asked for."""
    if config.get("held_out") is None:
        return {}
    trained = OmegaConf.to_container(config.trainer, resolve=True)["reward_funcs"]
    return {"reward_funcs": [*trained, *OmegaConf.to_container(config.held_out.functions, resolve=True)]}


def chooses(config: DictConfig) -> bool:
    """Whether the watching rewards choose the checkpoint that is kept."""
    return bool(config.get("held_out") and config.held_out.get("args", {}).get("load_best_model_at_end"))


def prompts_to_score(config: DictConfig, count: int) -> range:
    """Which of `count` held-out prompts are watched in training: the last `held_out.prompts`.

    Where these choose the checkpoint, results are reported on the others. Raises ValueError if none is left.
    """
    prompts = config.held_out.prompts
    if prompts >= count and chooses(config):
        raise ValueError(
            f"held_out.prompts={prompts}, but there are {count} held-out prompts: those that choose the checkpoint are "
            "not reported on. Give fewer, or held_out.args.load_best_model_at_end=false."
        )
    return range(max(0, count - prompts), count)


class HeldOutRewards(TrainerCallback):
    """Lets a trainer evaluate without a trace in its training, and its watching rewards watch only.

    An evaluation has a random state of its own, the same each time: training goes on as if there had been none, and
    two checkpoints differ by their weights, not by their draws. A completion without any reward that is trained on
    stays without one, though a watching function rated it.
    """

    def attach(self, trainer) -> None:
        """Wrap `evaluate` and `_calculate_rewards` of this trainer."""
        evaluate, rate = trainer.evaluate, trainer._calculate_rewards

        @functools.wraps(evaluate)
        def isolated(*args, **kwargs):
            with random_state(trainer.args.seed + trainer.accelerator.process_index):
                return evaluate(*args, **kwargs)

        @functools.wraps(rate)
        def trained_only(*args, **kwargs):
            rewards = rate(*args, **kwargs)  # (B, functions), of all processes
            unrated = rewards[:, trainer.reward_weights != 0].isnan().all(dim=1, keepdim=True)
            return rewards.masked_fill(unrated, torch.nan)

        trainer.evaluate, trainer._calculate_rewards = isolated, trained_only


@contextlib.contextmanager
def random_state(seed: int):
    """Python's, NumPy's and PyTorch's random state is `seed`'s inside, and what it was before afterwards."""
    before = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def best(state) -> dict:
    """For a stage's record: step and value of the checkpoint that was kept; {} where none was chosen."""
    if state.best_model_checkpoint is None:
        return {}
    return {"best_step": state.best_global_step, "best_metric": state.best_metric}
