"""Several reward models as one reward function (Coste et al., arXiv:2310.02743)."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_trl_ext.data.samples import read_samples
from rlhf_trl_ext.functional.ensembles import MODES, aggregate
from rlhf_trl_ext.quantities import Amount, Count
from rlhf_trl_ext.rewards.model import RewardModel


class RewardEnsemble:
    """Aggregates reward models, each brought to mean 0 and standard deviation 1 on samples of the reference policy.

    Without that, the model with the lowest scale alone decides the minimum. Logs `ensemble/std`, the mean standard
    deviation between the models, in units of the normalised reward: its rise over the value on reference samples
    (`reference_std`) says that the policy has left what the models know.

    members: folders or hub ids of classifiers with one label, or reward functions `(prompts, completions) -> rewards`.
    reference: a samples.jsonl of the reference policy as `launchers.generate` writes it.
    mode, weight: see `functional.ensembles.aggregate`. The other arguments are those of `RewardModel`.
    Raises ValueError for an unknown mode, no members, or fewer than two reference samples.
    """

    __name__ = "reward_ensemble"

    def __init__(
        self,
        members: list[str | Callable],
        reference: str,
        mode: str = "mean",
        weight: Amount = 0.1,
        batch_size: Count = 64,
        dtype: str = "float32",
        device: str | None = None,
    ):
        if mode not in MODES or not members:
            raise ValueError(f"mode={mode} with {len(members)} members: allowed are {', '.join(MODES)} of one or more.")
        self.mode, self.weight = mode, weight
        self.members = [RewardModel(m, batch_size, dtype, device) if isinstance(m, str) else m for m in members]
        prompts, completions = _read(reference)
        rewards = self._rewards(prompts, completions)  # (K, N)
        self.means = rewards.mean(1, keepdim=True)
        self.stds = rewards.std(1, keepdim=True).clamp(min=1e-6)
        self.reference_std = self._disagreement(self._normalised(rewards))

    def __call__(self, prompts: list, completions: list, log_metric: Callable | None = None, **kwargs) -> list[float]:
        """Aggregated rewards of completions, in standard deviations of the reference policy's."""
        rewards = self._normalised(self._rewards(prompts, completions, **kwargs))
        if log_metric is not None:
            log_metric("ensemble/std", self._disagreement(rewards))
            log_metric("ensemble/std_over_reference", self._disagreement(rewards) / max(self.reference_std, 1e-6))
        return aggregate(rewards, self.mode, self.weight).tolist()

    def _rewards(self, prompts: list, completions: list, **kwargs) -> Tensor:
        """Rewards of every member, `(K, B)`; NaN where one gave None."""
        scores = [member(prompts=prompts, completions=completions, **kwargs) for member in self.members]
        return torch.tensor(
            [[torch.nan if r is None else r for r in rewards] for rewards in scores], dtype=torch.float64
        )

    def _normalised(self, rewards: Tensor) -> Tensor:
        return (rewards - self.means) / self.stds

    @staticmethod
    def _disagreement(rewards: Tensor) -> float:
        return rewards.std(0, unbiased=False).mean().item()


def _read(reference: str) -> tuple[list, list]:
    """Prompts and completions of a samples.jsonl, completions as messages."""
    rows = read_samples(reference, "reference")
    if len(rows) < 2:
        raise ValueError(f"reference={reference} has {len(rows)} samples: at least 2 are needed.")
    return [row["prompt"] for row in rows], [[{"role": "assistant", "content": row["completion"]}] for row in rows]
