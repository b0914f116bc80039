"""Weights of several rewards that adapt to what each has gained."""

import json

import pytest
from conftest import DistinctCharacters

from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.stages.train import train


class Rising:
    """A reward that rises with every batch."""

    __name__ = "rising"

    def __init__(self):
        self.calls = 0

    def __call__(self, completions, **kwargs):
        self.calls += 1
        return [float(self.calls + place % 2) for place in range(len(completions))]


class Steady(DistinctCharacters):
    __name__ = "steady"

    def __call__(self, completions, **kwargs):
        return [float(place % 2) for place in range(len(completions))]


REWARDS = "++trainer.reward_funcs=[{_target_: test_reward_weights.Rising}, {_target_: test_reward_weights.Steady}]"
ADAPTIVE = "++callbacks.weights={_target_: rlhf_trl_ext.callbacks.reward_weights.AdaptiveWeights, rate: 0.2}"


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_what_gains_loses_weight_to_what_does_not(composed, few, tmp_path, monkeypatch, aggregation):
    monkeypatch.syspath_prepend(str(__file__.rpartition("/")[0]))
    online = ["++args.num_generations=4", "++args.max_completion_length=8", "++args.reward_weights=[0.5,0.5]"]
    more = [*online, REWARDS, ADAPTIVE, f"++args.multi_objective_aggregation={aggregation}"]
    train(composed("train", "algorithm=grpo", f"output_root={tmp_path}", *few, *more))
    (metrics,) = tmp_path.glob("stages/grpo-*/metrics.jsonl")
    rows = [row for row in read_metrics(metrics) if "reward_weights/steady" in row]
    weights = [row["reward_weights/steady"] for row in rows]
    assert len(weights) >= 3 and weights == sorted(weights) and weights[-1] > weights[0], json.dumps(rows[-1])
    assert all(row["reward_weights/steady"] + row["reward_weights/rising"] == pytest.approx(1) for row in rows)
