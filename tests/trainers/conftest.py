"""A very small policy and reward model, and runs of a few steps with them."""

import pytest
import torch
from conftest import ON_CPU
from datasets import Dataset

SETTINGS = {
    **ON_CPU,
    "save_strategy": "no",
    "disable_tqdm": True,
    "per_device_train_batch_size": 4,
    "steps_per_generation": 2,
    "num_iterations": 2,
    "max_completion_length": 8,
    "max_steps": 4,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """Folder of a policy with a width of 32."""
    from rlhf_trl_ext.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("policy")
    build_tiny(folder, hidden_size=32, layers=2, heads=2, feed_forward_size=64)
    return str(folder)


@pytest.fixture(scope="session")
def reward(policy, tmp_path_factory):
    """Folder of a reward model with the policy's backbone and a random head."""
    return classifier(policy, tmp_path_factory.mktemp("reward"))


@pytest.fixture(name="classifier", scope="session")
def classifier_fixture():
    return classifier


def classifier(policy, folder, num_labels=1, seed=5):
    """Write the policy with a random classification head to `folder`; returns its path."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=num_labels)
    model.score.weight.data.normal_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder)
    return str(folder)


def prompts(count=24):
    """Prompts of different lengths."""
    return Dataset.from_list([{"prompt": [{"role": "user", "content": "lamp " * (1 + i % 4)}]} for i in range(count)])


@pytest.fixture(name="make_trainer", scope="session")
def make_trainer_fixture():
    return make_trainer


def make_trainer(trainer_class, args_class, policy, folder, reward_funcs, trainer_arguments=None, **settings):
    from transformers import AutoTokenizer

    args = args_class(output_dir=str(folder), **{**SETTINGS, **settings})
    tokenizer = AutoTokenizer.from_pretrained(policy)
    return trainer_class(
        policy, reward_funcs, args, train_dataset=prompts(), processing_class=tokenizer, **(trainer_arguments or {})
    )


@pytest.fixture
def ppo(policy, reward, tmp_path):
    """`ppo(folder=..., **settings)`: a PPOTrainer, not yet trained."""
    from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

    def make(folder=tmp_path, reward_funcs=reward, model=policy, trainer_arguments=None, **settings):
        settings = {"critic_path": reward, **settings}
        return make_trainer(PPOTrainer, PPOConfig, model, folder, reward_funcs, trainer_arguments, **settings)

    return make


@pytest.fixture
def weights():
    """`weights(module)`: a copy of its parameters by name."""
    return lambda module: {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.fixture
def logged():
    """`logged(trainer, *without)`: the logged metrics but times, and but those whose name contains one of `without`."""

    def rows(trainer, *without):
        timed = ("runtime", "per_second", "step_time", "flos", *without)
        return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in trainer.state.log_history]

    return rows
