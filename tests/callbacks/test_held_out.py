"""Rewards that watch: on held-out prompts, without a trace in training, choosing the checkpoint that is kept."""

import json

import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from safetensors.torch import load_file
from stages.test_training import folder_of, weights

from rlhf_trl_ext.callbacks import held_out
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.configuration.checks import ConfigError, build, check
from rlhf_trl_ext.stages.train import train


class Peaked:
    """A held-out reward that is best at its second evaluation, whatever the policy does."""

    __name__ = "peaked"

    def __init__(self, missing: bool = False):
        self.missing = missing

    def __call__(self, completions, trainer_state=None, **kwargs):
        return [-abs(trainer_state.global_step - 2.0)] * len(completions)


WATCHED = [
    "held_out=gold",
    "held_out.functions=[{_target_: callbacks.test_held_out.Peaked}]",
    "held_out.args.metric_for_best_model=eval_rewards/peaked/mean",
    "++held_out.args.num_generations_eval=2",
    "held_out.prompts=8",
    "held_out.args.per_device_eval_batch_size=16",
    "++args.save_steps=1",
    "++args.save_total_limit=5",
]
REWARD = "++trainer.reward_funcs=[{_target_: conftest.DistinctCharacters}]"
CRITIC = ["++args.critic_path=null", "++args.num_iterations=1", "++args.kl_coef=0.0"]


def run(composed, few, folder, algorithm, *more):
    options = [*few, REWARD, "++args.num_generations=4", "++args.max_completion_length=8", *more]
    return train(composed("train", f"algorithm={algorithm}", f"output_root={folder}", *options))


@pytest.mark.parametrize(
    "algorithm, more",
    [
        ("grpo", ["++args.beta=0.0"]),
        pytest.param("ppo", CRITIC, marks=pytest.mark.slow),
        pytest.param("rloo", ["++args.beta=0.0"], marks=pytest.mark.slow),
        pytest.param("grpo_offpolicy", ["++args.beta=0.0"], marks=pytest.mark.slow),
        pytest.param("grpo_vi", ["++args.critic_path=null", "++args.beta=0.0"], marks=pytest.mark.slow),
    ],
)
def test_the_best_checkpoint_is_kept_and_watching_leaves_no_trace(algorithm, more, composed, few, tmp_path):
    plain = run(composed, few, tmp_path / "plain", algorithm, *more)
    record = run(composed, few, tmp_path / "watched", algorithm, *more, *WATCHED)
    assert (record["best_step"], record["best_metric"]) == (2, 0.0) and "best_step" not in plain
    folder, unwatched = (folder_of(tmp_path / name, algorithm) for name in ("watched", "plain"))
    best, last = weights(folder / "checkpoint-2"), weights(folder / "checkpoint-4")
    kept, without = weights(folder), weights(unwatched)
    assert all(torch.equal(kept[key], best[key]) for key in best)
    # Neither evaluation nor the watching reward moved the policy: the last checkpoint is that of a run without them.
    assert all(torch.equal(last[key], without[key]) for key in without)
    assert any(not torch.equal(best[key], last[key]) for key in last)
    if (folder / "critic").exists():
        critics = [load_file(path / "critic" / "model.safetensors") for path in (folder, folder / "checkpoint-2")]
        assert all(torch.equal(critics[0][key], critics[1][key]) for key in critics[1])
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "eval_reward" in row]
    assert [row["eval_rewards/peaked/mean"] for row in rows] == [-1.0, 0.0, -1.0, -2.0]
    assert {"eval_rewards/distinct_characters/mean", "eval_completions/mean_length"} <= set(rows[0])


@pytest.mark.slow
def test_a_run_cut_off_after_its_best_checkpoint_ends_alike(composed, few, tmp_path, cut_off):
    """Exact between two samplings also without this project's GRPOTrainer: here each step samples."""
    run(composed, few, tmp_path / "whole", "grpo", *WATCHED, "++args.beta=0.0")
    with cut_off(4):
        run(composed, few, tmp_path / "cut", "grpo", *WATCHED, "++args.beta=0.0")
    record = run(composed, few, tmp_path / "cut", "grpo", *WATCHED, "++args.beta=0.0")
    assert record["best_step"] == 2
    whole, cut = folder_of(tmp_path / "whole", "grpo"), folder_of(tmp_path / "cut", "grpo")
    for part in (".", "checkpoint-4"):
        ours, theirs = weights(cut / part), weights(whole / part)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    shown = [[row for row in read_metrics(f / "metrics.jsonl") if "eval_reward" in row] for f in (whole, cut)]
    assert [row["eval_reward"] for row in shown[0]] == [row["eval_reward"] for row in shown[1]]


def test_a_completion_without_a_trained_reward_stays_without_one():
    from types import SimpleNamespace

    rewards = torch.tensor([[1.0, 0.5], [torch.nan, 0.5], [2.0, torch.nan]])
    trainer = SimpleNamespace(
        evaluate=lambda: None, _calculate_rewards=lambda: rewards, reward_weights=torch.tensor([1.0, 0.0])
    )
    held_out.HeldOutRewards().attach(trainer)
    result = trainer._calculate_rewards()
    assert result.isnan().tolist() == [[False, False], [True, True], [False, True]]
    assert result[0].tolist() == [1.0, 0.5]


def test_checkpoints_are_chosen_on_prompts_that_are_not_reported_on(composed):
    config = composed("train", "algorithm=grpo", "held_out=gold", "held_out.prompts=8")
    assert held_out.chooses(config) and list(held_out.prompts_to_score(config, 20)) == list(range(12, 20))
    with pytest.raises(ValueError, match=r"held_out.prompts=8, but there are 8 held-out prompts"):
        held_out.prompts_to_score(config, 8)
    watching = composed("train", "algorithm=grpo", "held_out=gold", "++held_out.args.load_best_model_at_end=false")
    assert not held_out.chooses(watching) and list(held_out.prompts_to_score(watching, 8)) == list(range(8))


def test_offline_stages_are_as_without(composed):
    from rlhf_trl_ext.stages.identity import fingerprint

    assert fingerprint(composed("train", "algorithm=dpo", "held_out=gold")) == fingerprint(
        composed("train", "algorithm=dpo")
    )
    online = ["algorithm=grpo", "reward=gold"]
    assert fingerprint(composed("train", *online, "held_out=gold")) != fingerprint(composed("train", *online))


def test_one_checkpoint_cannot_be_best_and_last(composed, few, tmp_path):
    with pytest.raises(ConfigError, match="save_total_limit=1 keeps the best checkpoint or the last"):
        run(composed, few, tmp_path, "grpo", *WATCHED, "++args.save_total_limit=1")


@pytest.mark.parametrize("choice", sorted(path.stem for path in (ROOT / "conf" / "held_out").glob("*.yaml")))
def test_every_choice_composes_and_is_accepted(choice, composed, tmp_path):
    needed = {"model": ["held_out.functions.0.path=somewhere"]}.get(choice, [])
    config = composed("train", "algorithm=grpo", f"held_out={choice}", *needed)
    args = build(config.args, "args", output_dir=str(tmp_path), **held_out.arguments(config))
    assert args.load_best_model_at_end and args.greater_is_better and args.reward_weights == [1.0, 0.0]
    check(OmegaConf.create({"functions": held_out.reward_functions(config)["reward_funcs"]}), "held_out")


def test_what_the_command_line_says_about_checkpoints_comes_first(composed):
    config = composed("train", "algorithm=grpo", "held_out=gold", "++args.save_steps=20", "++args.reward_weights=[2.0]")
    result = held_out.arguments(config)
    assert (result["eval_steps"], result["reward_weights"]) == (20, [2.0, 0.0]) and "save_steps" in config.args
    assert json.dumps(held_out.reward_functions(config)).count("GoldReward") == 1
