"""The metric that chooses the best checkpoint is checked before the first step, without a trace in training."""

import pytest
import torch
from conftest import ON_CPU
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages.best_metric import check_best_metric


class Seen(TrainerCallback):
    def __init__(self):
        self.events = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.events.append((state.global_step, "eval_loss" in logs))


def trainer(tiny, folder, **settings):
    rows = Dataset.from_dict({"text": [f"<|user|>Hello {number}.<|end|>" for number in range(16)]})
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1, **settings}
    args = SFTConfig(output_dir=str(folder), **ON_CPU, **settings)
    return SFTTrainer(str(tiny), args=args, train_dataset=rows, eval_dataset=rows, callbacks=[Seen()])


def test_a_metric_that_no_evaluation_measures_is_refused(tiny, tmp_path):
    unknown = trainer(tiny, tmp_path, metric_for_best_model="nope")
    with pytest.raises(
        ConfigError, match=r"^args.metric_for_best_model=nope: .*give one of .*loss.*mean_token_accuracy"
    ):
        check_best_metric(unknown)
    callback = next(each for each in unknown.callback_handler.callbacks if isinstance(each, Seen))
    assert callback.events == []


def test_one_that_is_measured_leaves_training_as_it_is(tiny, tmp_path):
    weights = []
    for checked in (False, True):
        run = trainer(tiny, tmp_path, metric_for_best_model="eval_mean_token_accuracy", seed=1)
        before = torch.get_rng_state()
        if checked:
            check_best_metric(run)
            assert torch.equal(torch.get_rng_state(), before)
        run.train()
        weights.append([weight.clone() for weight in run.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_the_loss_is_not_evaluated_for(tiny, tmp_path, monkeypatch):
    run = trainer(tiny, tmp_path, metric_for_best_model="loss")
    monkeypatch.setattr(run, "evaluate", lambda *_: pytest.fail("an evaluation that nobody needs"))
    check_best_metric(run)
