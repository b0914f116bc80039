from types import SimpleNamespace

import pytest
from datasets import Dataset

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.handed_on import named_refusals
from rlhf_trl_ext.configuration.row_counts import some_left

MODEL = SimpleNamespace(lora_target_modules=["nope"], lora_task_type="LM")
REFUSALS = [
    (TypeError("Llama.__init__() got an unexpected keyword argument 'foo'"), "args.model_init_kwargs.foo: the model's"),
    (ValueError("Target modules nope not found in the base model."), r"model.lora_target_modules=\[nope\]: Target mod"),
    (AssertionError("EarlyStoppingCallback requires metric_for_best_model"), "args.metric_for_best_model=None: Early"),
    (KeyError("The `metric_for_best_model` is not found"), "args.metric_for_best_model=None: The `metric"),
    (ImportError("You need to install `apex`"), "^You need to install `apex`"),
]


@pytest.mark.parametrize(("error", "told"), REFUSALS)
def test_what_others_refuse_late_begins_with_the_key(error, told):
    args = SimpleNamespace(model_init_kwargs={"foo": 1}, metric_for_best_model=None)
    with pytest.raises(ConfigError, match=told), named_refusals(args, MODEL):
        args.model_init_kwargs = None  # as TRL does
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(TypeError), named_refusals(SimpleNamespace(model_init_kwargs={}), MODEL):
        raise TypeError("f() got an unexpected keyword argument 'foo'")


def test_rows_that_are_all_cut_off_are_told():
    with pytest.raises(ConfigError, match=r"args\.max_length=2: no row is left"):
        some_left([], SimpleNamespace(max_length=2), 1)
    assert some_left([1], SimpleNamespace(), 1) is None
    pairs = Dataset.from_dict(
        {"prompt_ids": [[1], [1, 1]], "chosen_ids": [[2], [2]], "rejected_ids": [[3, 3], [3, 3]]}  # 3 and 4 tokens
    )
    told = "args.max_length=3: of 5 rows 1 are cut there and 3 left out."
    assert some_left(pairs, SimpleNamespace(max_length=3), 5) == told
    assert some_left(pairs, SimpleNamespace(max_length=4), 2) is None
    texts = Dataset.from_dict({"input_ids": [[1, 2], [1]]})
    assert "of 2 rows 1 are cut there and 0 left out" in some_left(texts, SimpleNamespace(max_length=2), 2)
