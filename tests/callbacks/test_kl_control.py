from types import SimpleNamespace

import pytest

from rlhf_trl_ext.callbacks.kl_control import AdaptiveKL

ARGS = SimpleNamespace(
    gradient_accumulation_steps=1, steps_per_generation=2, num_iterations=1, generation_batch_size=64
)


def test_grpo_is_adapted_once_per_sampled_batch_from_the_logged_divergence():
    trainer = SimpleNamespace(beta=0.2)
    callback = AdaptiveKL(trainer, target=6.0, horizon=10_000)
    logs = {"kl": 0.5, "completions/mean_length": 20.0}  # 10 nats per sequence: the error is clipped to 0.2
    callback.on_log(ARGS, SimpleNamespace(global_step=2), None, logs)  # one batch of 64
    assert trainer.beta == pytest.approx(0.2 * (1 + 0.2 * 64 / 10_000))
    callback.on_log(ARGS, SimpleNamespace(global_step=6), None, logs)  # two batches more
    assert trainer.beta == pytest.approx(0.2 * (1 + 0.2 * 64 / 10_000) * (1 + 0.2 * 128 / 10_000))
    callback.on_log(ARGS, SimpleNamespace(global_step=6), None, {"train_loss": 1.0})
    again = AdaptiveKL(SimpleNamespace(beta=0.2), 6.0)
    again.load_resume_state(callback.resume_state())
    assert again.trainer.beta == trainer.beta and again.last_step == 6


@pytest.mark.parametrize(("beta", "target", "horizon"), [(0.0, 6.0, 1e4), (0.1, 0.0, 1e4), (0.1, 6.0, -1.0)])
def test_what_cannot_be_adapted_is_refused(beta, target, horizon):
    with pytest.raises(ValueError, match="must be above 0"):
        AdaptiveKL(SimpleNamespace(beta=beta), target, horizon)
