"""Compiled sampling on a CPU, where it is proven right; what it gains is measured on a GPU (`make gpu`)."""

import logging

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch._dynamo.utils import counters

from evaluation.proofs.parity.compiled import compare
from rlhf_trl_ext.models import compiled_decoding
from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer

SETTINGS = {"num_generations": 4, "num_iterations": 1, "beta": 0.1, "max_completion_length": 6}


def characters(completions, **kwargs):
    return [float(len(set(completion[0]["content"]))) for completion in completions]


@pytest.fixture
def trained(policy, make_trainer, tmp_path, weights, logged):
    """`trained(way, lora=None, **settings)`: sampled tokens, log, weights and trainer of a run of GRPO."""

    def run(way, lora=None, extra=(), checkpoint=None, **settings):
        torch._dynamo.reset()
        counters.clear()
        extra = {**dict(extra), **({} if lora is None else {"peft_config": lora})}
        given = {**SETTINGS, "compiled_generation": way, **settings}
        trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path / way, characters, extra, **given)
        sampled, sample = [], trainer._generate_single_turn

        def recorded(*args, **kwargs):
            result = sample(*args, **kwargs)
            sampled.append(result[0])
            return result

        trainer._generate_single_turn = recorded
        trainer.train(resume_from_checkpoint=checkpoint)
        return sampled, logged(trainer), weights(trainer.model), trainer

    return run


@pytest.fixture
def traced(monkeypatch):
    """Sampling is captured as graphs, but not translated to C++, which takes seconds."""

    def settings(device):
        given = compiled_decoding.compile_settings(device)
        given["compile_config"].backend, given["compile_config"].mode = "eager", None
        return given

    monkeypatch.setattr("rlhf_trl_ext.trainers.parts.compiled_generation.compile_settings", settings)


def graphs():
    return counters["stats"]["unique_graphs"]


def embedding_hooks(trainer):
    return len(trainer.accelerator.unwrap_model(trainer.model).get_input_embeddings()._forward_hooks)


def equal(some, others):
    return all(torch.equal(value, others[name]) for name, value in some.items())


def test_the_wrong_choice_is_refused_and_yamls_booleans_are_read(tmp_path):
    with pytest.raises(ValueError, match="compiled_generation=always: allowed are auto, on, off"):
        GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, compiled_generation="always")
    read = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, compiled_generation=False)
    assert read.compiled_generation == "off"


def test_hooks_stay_as_many_and_a_cpu_does_not_compile_by_itself(trained):
    # TRL alone: two more hooks in every one of the 50 steps
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    few, many = (
        trained("auto", lora=lora, max_steps=n, max_completion_length=1, gradient_checkpointing=True)[3]
        for n in (2, 50)
    )
    assert many.state.global_step == 50 and embedding_hooks(many) == embedding_hooks(few) <= 1
    assert graphs() == 0


@pytest.mark.usefixtures("traced")
def test_samples_losses_and_weights_are_those_without_a_compiler(trained):
    settings = {"max_steps": 6, "steps_per_generation": 1}
    tokens, log, weights, _ = trained("off", **settings)
    compiled_tokens, compiled_log, compiled_weights, _ = trained("on", **settings)
    assert graphs() == 1 and len(tokens) == 6
    assert compiled_tokens == tokens and compiled_log == log and equal(compiled_weights, weights)


def test_it_falls_back_and_says_why_once(trained, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = trained("on", max_steps=4, cache_implementation="dynamic")[3]
    said = [record.getMessage() for record in caplog.records if "is not compiled" in record.getMessage()]
    assert len(said) == 1 and "args.cache_implementation" in said[0]
    assert graphs() == 0 and trainer.state.global_step == 4


def test_a_sliding_window_is_a_reason():
    from transformers import MistralConfig, MistralForCausalLM

    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
    sizes |= {"num_key_value_heads": 2}
    slides, whole = (MistralForCausalLM(MistralConfig(sliding_window=window, **sizes)) for window in (4, None))
    assert "sliding window" in compiled_decoding.why_not_compiled(slides)
    assert compiled_decoding.why_not_compiled(whole) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, checkpointing, lora",  # all pairs of checkpointing and LoRA; each algorithm once
    [
        ("grpo", False, False),
        ("ppo", True, True),
        # The graphs of the others are these two's, so that C++ of them would show nothing new.
        ("grpo_offpolicy", False, True),
        ("grpo_vi", True, False),
        ("rloo", True, True),
    ],
)
def test_one_compilation_over_twelve_batches(name, checkpointing, lora, policy, tmp_path, request):
    if name not in ("grpo", "ppo"):
        request.getfixturevalue("traced")
    row = compare(policy, tmp_path, name, checkpointing, lora, batches=12)
    assert (row["batches"], row["graphs"]) == (12, 1) and row["hooks"] <= 1
    assert row["samples"] and row["log"] and row["weights"]


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_evaluation_with_other_rows_is_no_second_graph(trained):
    held_out = Dataset.from_list([{"prompt": [{"role": "user", "content": "lamp " * n}]} for n in (1, 3, 9, 2, 4)])
    settings = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4}
    settings |= {"num_generations_eval": 1, "extra": {"eval_dataset": held_out}}
    whole = trained("off", **settings)
    compiled = trained("on", **settings)
    assert graphs() == 1
    assert {len(batch) for batch in compiled[0]} == {8, 4, 1}
    assert compiled[0] == whole[0] and compiled[1] == whole[1]


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_resume_is_exact(trained, tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "num_iterations": 2}
    _, log, weights, _ = trained("on", **settings)
    _, resumed_log, resumed_weights, _ = trained("on", checkpoint=str(tmp_path / "on" / "checkpoint-3"), **settings)
    assert resumed_log[-3:-1] == log[-3:-1] and equal(resumed_weights, weights)


@pytest.mark.parametrize(
    ("owner", "name", "value", "reason"),
    [
        ("_dist", "zero_stage", 3, "ZeRO-3 and FSDP"),
        ("_dist", "fsdp_version", 2, "ZeRO-3 and FSDP"),
        (None, "_is_vlm", True, "takes images"),
        (None, "use_transformers_continuous_batching", True, "continuous batching"),
        (None, "tools", [print], "grow from turn to turn"),
        ("generation_config", "num_beams", 4, "beam search"),
    ],
)
def test_reasons_of_the_trainer(owner, name, value, reason, policy, make_trainer, tmp_path, caplog):
    settings = {**SETTINGS, "compiled_generation": "on"}
    trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path, characters, **settings)
    setattr(getattr(trainer, owner) if owner else trainer, name, value)
    with caplog.at_level(logging.WARNING):
        assert not trainer.compiles() and not trainer.compiles()
    assert [reason in record.getMessage() for record in caplog.records if "not compiled" in record.getMessage()] == [
        True
    ]


def test_vllm_is_not_a_fallback_and_says_nothing(policy, make_trainer, tmp_path, caplog):
    settings = {**SETTINGS, "compiled_generation": "on"}
    trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path, characters, **settings)
    trainer.use_vllm = True
    with caplog.at_level(logging.WARNING):
        assert not trainer.compiles()
    assert not [record for record in caplog.records if "not compiled" in record.getMessage()]
