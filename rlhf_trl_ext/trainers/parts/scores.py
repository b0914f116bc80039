"""Rewards brought to a common scale, for algorithms whose result depends on it."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rlhf_trl_ext.callbacks.records import REFERENCE_TOKENS
from rlhf_trl_ext.functional.policy_gradient import masked_mean, masked_variance
from rlhf_trl_ext.trainers.parts.critic import CriticArguments, CriticMixin, critic_folder
from rlhf_trl_ext.trainers.parts.initial_critic import load_critic

logger = logging.getLogger(__name__)
REFERENCE = "reference"
SAME = 1e-6  # a standard deviation that is rounding
UNITS = "scores.json"


@dataclass
class ScoreArguments(CriticArguments):
    """Arguments of every algorithm with a critic that is not invariant to shift and scale of the reward."""

    score_center: float | str = field(default=0.0, metadata={"help": "Taken off scores: a number or `reference`."})
    score_scale: float | str = field(default=1.0, metadata={"help": "Divides scores: a number or `reference`."})
    score_reference_batches: int = field(default=4, metadata={"help": "Sampled before step 1 for `reference`."})

    def __post_init__(self):
        for name in ("score_center", "score_scale"):
            value = getattr(self, name)
            if (isinstance(value, str) and value != REFERENCE) or (name == "score_scale" and value == 0):
                raise ValueError(f"{name}={value}: a number other than a scale of 0, or {REFERENCE}, is allowed.")
        super().__post_init__()


class ScoredCritic(CriticMixin):
    """Mixin beside `Online`: `scores`, `(reward - score_center) / score_scale`, and a critic whose values are scores.

    With `reference`, center and scale are mean and standard deviation of the rewards of completions that the first
    policy, which is the reference, samples on prompts spread over the training data (arXiv:2403.17031, detail 3;
    Ziegler et al., arXiv:1909.08593, 2.2). They are measured once, before the first step, and kept in checkpoints.
    Completions without a reward do not count; where all have the same, the scale is 1.

    The critic is loaded as `args.critic_path` asks. One that was a reward model speaks in rewards, and goes on doing
    so. One that started from the policy speaks in the scores of its run, whose center and scale lie beside it in
    `scores.json`.
    """

    def __init__(self, model, reward_funcs=None, args=None, **kwargs):
        super().__init__(model, reward_funcs, args, **kwargs)
        settings = (self.args.score_center, self.args.score_scale)
        if REFERENCE in settings and not hasattr(self.train_dataset, "__len__"):
            raise ValueError(
                f"score_center={settings[0]}, score_scale={settings[1]}: a streamed dataset needs numbers."
            )
        self.score_center, self.score_scale = (None if value == REFERENCE else float(value) for value in settings)
        self.critic_units = saved_units(self.args.critic_path) if self.args.critic_path else None
        self.attach_critic(load_critic(self, kwargs.get("peft_config"), kwargs.get("quantization_config")))

    def scores(self, batch: dict) -> Tensor:
        """`(B,)`; NaN where no reward function gave a reward."""
        return (batch["rewards"] - self.score_center) / self.score_scale

    def _generate_and_score_completions(self, inputs):
        if self.score_center is None or self.score_scale is None:
            self._measure_reference(len(inputs))
        return super()._generate_and_score_completions(inputs)

    def _measure_reference(self, rows: int) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        before, seen, tokens = {name: list(values) for name, values in metrics.items()}, [], 0
        count = self.args.score_reference_batches
        first, total = self.accelerator.process_index * count * rows, self.accelerator.num_processes * count * rows
        for start in range(first, first + count * rows, rows):
            places = [place * len(self.train_dataset) // total for place in range(start, start + rows)]
            batch = super()._generate_and_score_completions([self.train_dataset[place] for place in places])
            seen.append(batch["rewards"])
            tokens = tokens + self.total(batch["completion_mask"].sum())
        metrics.clear()
        metrics.update(before)
        metrics[REFERENCE_TOKENS].append(float(tokens))
        rewards = torch.cat(seen)
        valid, rewards = (~rewards.isnan()).float(), rewards.nan_to_num()
        if self.score_center is None:
            self.score_center = masked_mean(rewards, valid, self.total).item()
        if self.score_scale is None:
            deviation = masked_variance(rewards, valid, self.total).sqrt().item()
            if deviation < SAME:
                logger.warning("score_scale=reference: all rewards of the reference are equal, so none is divided.")
            self.score_scale = deviation if deviation >= SAME else 1.0

    def resume_state(self) -> dict:
        return {**super().resume_state(), "score_center": self.score_center, "score_scale": self.score_scale}

    def load_resume_state(self, state: dict) -> None:
        super().load_resume_state(state)
        self.score_center, self.score_scale = state["score_center"], state["score_scale"]

    def values(self, batch):
        values = super().values(batch)
        if self.critic_units in (None, (self.score_center, self.score_scale)):
            return values
        center, scale = self.critic_units
        return (values * scale + center - self.score_center) / self.score_scale

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        units = self.critic_units or (self.score_center, self.score_scale)
        if self.args.should_save and units != (0.0, 1.0):
            file = critic_folder(self.critic, output_dir or self.args.output_dir) / UNITS
            file.write_text(json.dumps(dict(zip(("center", "scale"), units, strict=True))))


def saved_units(folder: str) -> tuple[float, float]:
    """Center and scale of the scores that a saved critic speaks in; (0, 1), rewards, where none are beside it."""
    file = Path(folder, UNITS)
    if not file.exists():
        return 0.0, 1.0
    units = json.loads(file.read_text())
    return units["center"], units["scale"]
