"""Who judges the policies of a pipeline, and whether they were trained for it."""

import json

import pytest
from omegaconf import OmegaConf

from evaluation.verdicts.fairness import expectation, fairness, optimised
from rlhf_trl_ext.judging.gold import GoldJudge
from rlhf_trl_ext.judging.judge import ScoreJudge
from rlhf_trl_ext.judging.reward_model import RewardModelJudge

REWARD = {"path": None, "functions": ["${reward.path}"]}
RECORDS = {"dpo": {"sampled_tokens": 0, "fingerprint": "d"}, "grpo": {"sampled_tokens": 9, "fingerprint": "g"}}
RECORDS["reward"] = {"fingerprint": "r"}


def pipeline(policies=("dpo", "grpo"), **more):
    return OmegaConf.create({"policies": list(policies), "reward": REWARD, **more})


def samples(**scores):
    return [{"prompt": "q", "completion": "a", **scores}] * 2


def judged(judge, config, settings=None, **scores):
    if judge.recorded:
        judge.compare(samples(**scores), samples(**scores))
    return fairness(judge, settings or {}, optimised(config, RECORDS))


def test_the_reward_that_was_optimised_is_no_fair_judge():
    line = judged(ScoreJudge(), pipeline(), reward=1.0)
    assert line.startswith("no: grpo trained for the very reward that judges here") and "judge=reward_model" in line
    assert judged(ScoreJudge(), pipeline(["dpo"]), reward=1.0).startswith("in part: no policy trained for this reward")


@pytest.mark.parametrize(
    "more, rewards",
    [
        (["reward=model"], ["<folder of reward>", '["<folder of reward>"]']),
        (["reward=model", "reward.stage=null", "reward.path=hub/rm"], ["hub/rm", '["hub/rm"]']),
        (["reward=gold"], ['[{"_target_": "rlhf_trl_ext.rewards.gold.GoldReward"}]']),
    ],
)
def test_what_was_optimised_is_recorded_without_interpolations(more, rewards, composed):
    assert optimised(composed("pipeline", *more), RECORDS)["rewards"] == rewards


def test_the_gold_and_the_held_out_reward_come_before_it():
    gold, held_out = ScoreJudge(), ScoreJudge()
    assert judged(gold, pipeline(), reward=1.0, gold_reward=0.5, held_out_reward=2.0).startswith("yes: the gold reward")
    assert gold.field == "gold_reward"
    assert judged(held_out, pipeline(), reward=1.0, held_out_reward=2.0).startswith("yes: no policy was trained for")
    assert held_out.name == "held_out_reward"
    assert judged(GoldJudge(noise=0.1), pipeline()).startswith("yes")


def test_the_pipelines_own_reward_model_is_known_by_its_stage_and_by_its_path(tmp_path):
    for name, mark in (("own", "r"), ("other", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text(json.dumps({"fingerprint": mark}))
    for name, answer in (("own", "no: grpo"), ("other", "yes: no policy")):
        path = str(tmp_path / name)
        assert judged(RewardModelJudge(path), pipeline(), {"path": path}).startswith(answer)
    config = pipeline()
    config.reward.path = "hub/reward"
    assert judged(RewardModelJudge("hub/reward"), config, {"path": "hub/reward"}).startswith("no: grpo")


def test_a_judge_of_ones_own_labels_is_known():
    settings = {"_target_": "rlhf_trl_ext.judging.local.LocalJudge", "model": "m", "record": "a.jsonl"}
    judge = RewardModelJudge("any")
    judge.name = "m"
    assert judged(judge, pipeline(labeller={**settings, "record": "b.jsonl"}), settings).startswith("no: the policies")
    assert judged(judge, pipeline(labeller={**settings, "model": "n"}), settings).startswith("yes")


def test_of_ones_own_samples_nobody_knows():
    judge = ScoreJudge("reward")
    assert fairness(judge, {}, None).startswith("only if no policy was trained for the reward")


@pytest.mark.parametrize("more, warned", [([], True), (["judge=gold"], False), (["held_out=model"], False)])
def test_a_warning_comes_before_training(more, warned, composed, tmp_path):
    overrides = ["dataset=file", "dataset.path=rows.csv", *more]
    assert (expectation(composed("pipeline", *overrides), object()) is not None) == warned


def test_the_embedded_data_need_no_warning(composed):
    from rlhf_trl_ext.data.embedded import Embedded

    assert expectation(composed("pipeline"), Embedded()) is None
