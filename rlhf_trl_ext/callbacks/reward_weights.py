"""Weights of several reward functions that adapt to what each has gained."""

import torch

from rlhf_trl_ext.callbacks.attached import AttachedCallback
from rlhf_trl_ext.functional.objectives import rebalanced
from rlhf_trl_ext.quantities import Share


class AdaptiveWeights(AttachedCallback):
    """Moves `trainer.reward_weights` towards the rewards that have gained least, whenever the trainer logs.

    A reward's gain is the rise of its mean over the first log, in standard deviations of the first log, so that rewards
    of different scale compare; `functional.objectives.rebalanced` has the formula. Functions of weight 0 only watch and
    keep it. The weights are logged as `reward_weights/<function>` and are part of checkpoints.

    rate: of a log. least: share of the weights that none falls below. Raises ValueError where fewer than two functions
    have a weight.
    """

    def __init__(self, rate: Share = 0.1, least: Share = 0.1):
        self.rate, self.least = rate, least
        self.start: torch.Tensor | None = None  # (2, K): means and standard deviations of the first log

    def attach(self, trainer) -> None:
        """Take hold of the trainer before it starts."""
        super().attach(trainer)
        self.adapted = [i for i, weight in enumerate(trainer.reward_weights.tolist()) if weight != 0]
        if len(self.adapted) < 2:
            raise ValueError(
                f"callbacks: {len(self.adapted)} reward with a weight; at least 2 are needed to adapt them."
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        names = [self.trainer.reward_func_names[i] for i in self.adapted]
        if any(f"rewards/{name}/mean" not in logs for name in names):
            return
        means, deviations = torch.tensor([[float(logs[f"rewards/{n}/{k}"]) for n in names] for k in ("mean", "std")])
        if self.start is None:
            self.start = torch.stack([means, deviations.clamp(min=1e-6)])
        weights = self.trainer.reward_weights
        gains = (means - self.start[0]) / self.start[1]
        weights[self.adapted] = rebalanced(weights[self.adapted], gains, self.rate, self.least)

    def on_step_end(self, args, state, control, **kwargs):
        # TRL forgets its metrics once they are logged, so they are added before.
        for place in self.adapted:
            name = f"reward_weights/{self.trainer.reward_func_names[place]}"
            self.trainer._metrics["train"][name].append(self.trainer.reward_weights[place].item())

    def resume_state(self) -> dict:
        return {"start": self.start, "weights": self.trainer.reward_weights.clone()}

    def load_resume_state(self, state: dict) -> None:
        self.start, self.trainer.reward_weights = state["start"], state["weights"]
