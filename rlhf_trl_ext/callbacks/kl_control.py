"""The KL coefficient of an online trainer, adapted to keep the divergence near a target."""

from transformers import TrainerCallback

from rlhf_trl_ext.callbacks.records import generations
from rlhf_trl_ext.functional.policy_gradient import adapted_coefficient


class AdaptiveKL(TrainerCallback):
    """Adapts `trainer.beta` (Ziegler et al., arXiv:1909.08593, 2.2; `adapted_coefficient` has the formula).

    PPO calls `update` once per sampled batch. For GRPO, whose trainer logs `kl` per token, the callback takes
    `kl * mean length` as the divergence of a sequence whenever it is logged. The coefficient is part of checkpoints.

    target: nats per sequence. horizon: in sequences. Raises ValueError if the trainer has no coefficient to start from.
    """

    def __init__(self, trainer, target: float, horizon: float = 10_000):
        if trainer.beta <= 0 or target <= 0 or horizon <= 0:
            raise ValueError(
                f"kl_target={target} with kl_horizon={horizon} and a coefficient of {trainer.beta} cannot be adapted: "
                "all three must be above 0."
            )
        self.trainer, self.target, self.horizon = trainer, target, horizon
        self.last_step = 0

    def update(self, kl: float, sequences: int) -> None:
        """kl: mean over the sequences of all processes, in nats; sequences: their number."""
        self.trainer.beta = adapted_coefficient(self.trainer.beta, kl, self.target, self.horizon, sequences)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs.get("kl") is None or "completions/mean_length" not in logs:
            return
        batches = generations(args, state.global_step) - generations(args, self.last_step)
        self.last_step = state.global_step
        self.update(logs["kl"] * logs["completions/mean_length"], batches * args.generation_batch_size)

    def resume_state(self) -> dict:
        return {"beta": self.trainer.beta, "last_step": self.last_step}

    def load_resume_state(self, state: dict) -> None:
        self.trainer.beta, self.last_step = state["beta"], state["last_step"]
