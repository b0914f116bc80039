"""Training ends when its budget is used."""

from types import SimpleNamespace

import pytest

from evaluation.comparison.budget import Budget as Budget
from rlhf_trl_ext.callbacks.budget import BudgetCallback
from rlhf_trl_ext.callbacks.records import MetricsRecorder
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.train import train

REWARD = "++trainer.reward_funcs=[{_target_: conftest.DistinctCharacters}]"


def test_a_run_stops_at_the_step_that_uses_its_tokens(composed, few, tmp_path):
    online = ["++args.num_generations=4", "++args.max_completion_length=8", "++args.max_steps=1000"]
    limit = ["++budget.sampled_tokens=150", "++args.lr_scheduler_type=constant"]
    record = train(composed("train", "algorithm=grpo", f"output_root={tmp_path}", *few, REWARD, *online, *limit))
    # 8 completions of at most 8 tokens a step: at least 3 steps, and at most one batch too many.
    assert 3 <= record["steps"] < 1000
    assert 150 <= record["sampled_tokens"] < 150 + 64


def test_seconds_stop_as_well(tmp_path):
    recorder = MetricsRecorder(tmp_path)
    budget, control = BudgetCallback(recorder, seconds=5), SimpleNamespace(should_training_stop=False, should_log=False)
    budget.on_step_end(None, None, control)
    recorder.seconds = 4.9
    budget.on_log(None, None, control)
    assert control.should_log and not control.should_training_stop
    recorder.seconds = 5.0
    budget.on_log(None, None, control)
    assert control.should_training_stop


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="give one or both, above 0"):
        BudgetCallback(MetricsRecorder(tmp_path))
    with pytest.raises(ConfigError, match=r"budget.sampled_tokens=5, budget.seconds=3: give one of"):
        Budget(sampled_tokens=5, seconds=3)


def test_what_a_budget_means_for_every_kind_of_algorithm(composed):
    grpo, dpo = (composed("train", f"algorithm={name}", "++args.max_steps=7") for name in ("grpo", "dpo"))
    tokens = Budget(sampled_tokens=100)
    assert tokens.applied(grpo).budget == {"sampled_tokens": 100} and tokens.applied(grpo).args.max_steps > 1e5
    assert tokens.applied(grpo).args.lr_scheduler_type == "constant"
    assert tokens.applied(dpo) == dpo and "dpo samples none" in tokens.in_words({"grpo": True, "dpo": False})
    assert Budget(gradient_steps=3).applied(dpo).args.max_steps == 3
    assert Budget(seconds=9).applied(dpo).budget == {"seconds": 9}
    assert Budget().applied(grpo) == grpo
