"""The experiment with several rewards: its stages, and what its reward models learn from."""

from evaluation.report.pareto import frontier
from rlhf_trl_ext.data.embedded import Embedded
from rlhf_trl_ext.rewards import gold
from rlhf_trl_ext.stages.needs import placed
from rlhf_trl_ext.stages.pipeline import Pipeline


def test_every_weighting_is_a_policy_on_both_reward_models(composed, tmp_path):
    config = composed("pipeline", "experiment=multi_objective", f"output_root={tmp_path}")
    pipeline = Pipeline(config, lambda name: composed(f"algorithm/{name}"))
    models = ["reward_helpfulness", "reward_harmlessness"]
    assert (
        set(pipeline.configs) >= {"sft", *models, "balanced", "samples-adaptive"} and "reward" not in pipeline.configs
    )
    assert set(pipeline.configs["balanced"].needs) == {"sft", *models}
    assert set(pipeline.configs["samples-balanced"].needs) == {"balanced", "sft", *models}
    pipeline.folders = {name: tmp_path / name for name in pipeline.configs}
    stage = placed(pipeline.configs["normalized"], pipeline.folders)
    assert list(stage.reward.functions) == [str(tmp_path / name) for name in models] == list(stage.trainer.reward_funcs)
    assert stage.args.multi_objective_aggregation == "normalize_then_sum" and stage.args.max_steps == 40
    assert pipeline.configs["adaptive"].callbacks and not pipeline.configs["balanced"].callbacks
    assert list(pipeline.configs["reward_harmlessness"].dataset.preferred_by) == ["courtesy"]
    pipeline.check()


def test_pairs_follow_the_objective_and_not_gold():
    rows = Embedded(preferences=40, noise=0.0, preferred_by=["courtesy"]).load("preferences")
    against = 0
    for row in rows:
        facts = gold.read_facts(row["prompt"][0]["content"])
        chosen, rejected = (row[side][0]["content"] for side in ("chosen", "rejected"))
        parts = [gold.score_parts(facts, text) for text in (chosen, rejected)]
        worth = [part["courtesy"] * (1 - part["repetition"]) * part["wording"] for part in parts]
        assert worth[0] > worth[1]
        against += gold.score(facts, chosen) < gold.score(facts, rejected)
    assert against > 0  # gold would have chosen otherwise in some


def test_a_policy_that_wins_in_one_objective_is_on_the_frontier():
    assert frontier({"helpful": (2.0, 0.0), "harmless": (0.0, 2.0), "neither": (0.0, 1.9)}) == ["helpful", "harmless"]
