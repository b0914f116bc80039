"""Trainers and callbacks as a library, as in TRL's quickstart."""

import json
import subprocess
import sys

import pytest
import trl
from conftest import ON_CPU
from datasets import Dataset

import rlhf_trl_ext
from rlhf_trl_ext import PPOConfig, PPOTrainer, Profiler, StabilityMonitor

ONLINE = ["GRPO", "RLOO", "PPO", "OffPolicyGRPO", "GRPOVI"]
PLAIN = Dataset.from_list([{"prompt": f"lamp {i}"} for i in range(8)])
CHATS = Dataset.from_list([{"prompt": [{"role": "user", "content": f"lamp {i}"}]} for i in range(8)])
SHORT = {"max_steps": 2, "max_completion_length": 6, "save_strategy": "no", "disable_tqdm": True}


def length(completions, **kwargs):
    return [float(len(str(completion))) for completion in completions]


def test_importing_the_package_loads_no_library():
    code = "import sys, rlhf_trl_ext; dir(rlhf_trl_ext); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_name_of_the_package_is_there():
    assert all(getattr(rlhf_trl_ext, name).__name__ == name for name in rlhf_trl_ext.__all__)
    with pytest.raises(AttributeError, match=r"no attribute .PPO.; it has .*PPOTrainer"):
        rlhf_trl_ext.PPO  # noqa: B018


@pytest.mark.parametrize("name", ONLINE)
def test_no_arguments_are_needed(name, policy, tmp_path, monkeypatch):
    """As in TRL, whose defaults want a GPU that knows bfloat16."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    trainer = getattr(rlhf_trl_ext, f"{name}Trainer")(policy, reward_funcs=length, train_dataset=PLAIN)
    assert type(trainer.args) is getattr(rlhf_trl_ext, f"{name}Config")
    assert trainer.args.output_dir.startswith("policy") and trainer.kl_control is None


@pytest.mark.parametrize("data", [PLAIN, CHATS], ids=["standard", "conversational"])
@pytest.mark.parametrize("name", ONLINE)
def test_it_trains_on_any_prompts(name, data, policy, tmp_path):
    args = getattr(rlhf_trl_ext, f"{name}Config")(str(tmp_path), num_generations=4, **SHORT, **ON_CPU)
    trainer = getattr(rlhf_trl_ext, f"{name}Trainer")(policy, reward_funcs=length, args=args, train_dataset=data)
    assert trainer.train().global_step == 2


def test_trls_own_arguments_do_for_trls_own_trainers(policy, tmp_path):
    common = {"reward_funcs": length, "train_dataset": PLAIN}
    args = trl.GRPOConfig(str(tmp_path), num_generations=4, **SHORT, **ON_CPU)
    assert rlhf_trl_ext.GRPOTrainer(policy, args=args, **common).kl_control is None
    with pytest.raises(TypeError, match="PPOTrainer: args is a GRPOConfig; give a PPOConfig"):
        PPOTrainer(policy, args=args, **common)


@pytest.mark.filterwarnings("ignore")
def test_soft_dpo(policy, tmp_path):
    pair = {"prompt": "lamp", "chosen": " desk", "rejected": " mug", "p_chosen": 0.8}
    args = trl.DPOConfig(str(tmp_path), max_steps=1, **ON_CPU)
    trainer = rlhf_trl_ext.SoftDPOTrainer(policy, args=args, train_dataset=Dataset.from_list([pair] * 8))
    assert trainer.train().global_step == 1


def test_callbacks_in_a_trainer_of_trl(policy, tmp_path):
    monitor, profiler = StabilityMonitor(), Profiler()
    args = trl.GRPOConfig(str(tmp_path / "run"), num_generations=4, **SHORT, **ON_CPU)
    callbacks = [monitor, profiler]
    trainer = trl.GRPOTrainer(policy, length, args, train_dataset=CHATS, callbacks=callbacks)
    trainer.train()
    assert monitor.trainer is profiler.trainer is trainer and "kl_spike" in monitor.rules.rules
    profile = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert profile["phases"]["generate"] > 0 and profile["phases"]["backward"] > 0


def test_the_profiler_restores_what_it_patches_when_a_step_fails(policy, tmp_path):
    from trl.extras.profiling import ProfilingContext

    def broken(completions, **kwargs):
        assert ProfilingContext.__enter__ is not before[0]  # within a step
        raise KeyError("answer")

    before = ProfilingContext.__enter__, ProfilingContext.__exit__
    args = trl.GRPOConfig(str(tmp_path), num_generations=4, **SHORT, **ON_CPU)
    with pytest.raises(KeyError):
        trl.GRPOTrainer(policy, broken, args, train_dataset=CHATS, callbacks=[Profiler()]).train()
    assert (ProfilingContext.__enter__, ProfilingContext.__exit__) == before


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("num_ppo_epochs", "num_iterations"),
        ("cliprange", "epsilon"),
        ("num_mini_batches", "steps_per_generation"),
        ("response_length", "max_completion_length"),
        ("total_episodes", "max_steps"),
        ("whiten_rewards", "score_scale='reference'"),
        ("ref_model", "the model that training starts from"),
        ("value_model", "critic_path"),
        ("reward_model", "reward_funcs"),
    ],
)
def test_names_of_earlier_versions_are_answered_with_todays(old, today, policy):
    with pytest.raises(TypeError, match=f"PPOConfig has other names: {old}: .*{today}"):
        PPOConfig("out", **{old: 1})
    with pytest.raises(TypeError, match=f"PPOTrainer has other names: {old}: .*{today}"):
        PPOTrainer(policy, **{old: None})


def test_all_old_names_are_answered_at_once_and_todays_are_none(policy):
    with pytest.raises(TypeError, match=r"ref_model: .*; reward_model: .*; value_model: "):
        PPOTrainer(args=None, model=policy, ref_model=None, reward_model=None, value_model=None)
    with pytest.raises(TypeError, match="the first argument is the model"):
        PPOTrainer(PPOConfig("out", **ON_CPU), None)
    assert not set(PPOConfig.renamed) & set(PPOConfig.__dataclass_fields__)
