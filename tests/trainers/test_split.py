"""An optimizer step does not depend on the micro-batches that its rows, of unequal lengths, are spread over."""

import pytest
import torch

LENGTHS = (1, 8, 2, 7, 3, 8, 1, 5)


def roll_out(prompts, trainer):
    rows = []
    for row in range(len(prompts)):
        generator = torch.Generator().manual_seed(row + 100 * trainer.state.global_step)
        rows.append(torch.randint(10, 200, (LENGTHS[row % 8],), generator=generator).tolist())
    nothing = [[0.0] * len(ids) for ids in rows]
    return {"prompt_ids": [[9, 8]] * len(prompts), "completion_ids": rows, "logprobs": nothing}


def score(completion_ids, **kwargs):
    return [sum(ids) / len(ids) / 50 for ids in completion_ids]


def classes(name):
    from rlhf_trl_ext.trainers import grpo, grpo_offpolicy, grpo_vi, ppo

    return {
        "ppo": (ppo.PPOTrainer, ppo.PPOConfig),
        "grpo": (grpo.GRPOTrainer, grpo.GRPOConfig),
        "grpo_offpolicy": (grpo_offpolicy.OffPolicyGRPOTrainer, grpo_offpolicy.OffPolicyGRPOConfig),
        "grpo_vi": (grpo_vi.GRPOVITrainer, grpo_vi.GRPOVIConfig),
    }[name]


@pytest.fixture
def steps(policy, reward, make_trainer, tmp_path):
    """`steps(name, parts, **settings)`: how much each weight has moved after three steps on 8 rows in parts."""

    def run(name, parts, **settings):
        critic = {"critic_path": reward} if name in ("ppo", "grpo_vi") else {}
        settings = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts, **settings}
        settings |= {"steps_per_generation": parts, "max_steps": 3, "num_iterations": 1, "num_generations": 4}
        settings |= {"optim": "sgd", "learning_rate": 0.005, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
        trainer = make_trainer(
            *classes(name), policy, tmp_path / f"{parts}", score, {"rollout_func": roll_out}, **critic, **settings
        )
        before = {key: value.detach().clone() for key, value in trainer.model.named_parameters()}
        trainer.train()
        return torch.cat([(v.detach() - before[key]).flatten() for key, v in trainer.model.named_parameters()])

    return run


ALGORITHMS = [
    ("ppo", {}),
    ("grpo", {}),
    ("grpo_offpolicy", {}),
    ("grpo_offpolicy", {"loss_type": "bnpo"}),
    ("grpo_vi", {"loss_type": "bnpo", "vi_adapt": "none"}),
]


@pytest.mark.parametrize(("name", "settings"), ALGORITHMS)
def test_one_batch_of_eight_rows_equals_eight_of_one(steps, name, settings):
    whole, split = (steps(name, parts, **settings) for parts in (1, 8))
    assert whole.norm() > 1e-3
    assert (whole - split).abs().max() < 1e-6, (whole - split).abs().max()


def test_trls_way_depends_on_the_split(steps):
    whole, split = (steps("ppo", parts, loss_normalization="micro_batch") for parts in (1, 8))
    assert (whole - split).norm() > 0.1 * whole.norm()  # the control
