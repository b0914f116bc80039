"""Trainers beside the engine in one process: what it samples from is the policy of now."""

import json
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.vllm
NAMES = ("grpo", "ppo", "grpo_offpolicy", "grpo_vi")


def near_one(ratios, tolerance):
    return all(1 - tolerance < least and largest < 1 + tolerance for least, largest in ratios)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_every_update_reaches_the_engine_until_it_is_cut_off(name, lora, make, ratios, in_float32):
    trainer = make(name, lora)
    send = trainer.vllm_generation.sync_weights
    trainer.vllm_generation.sync_weights = lambda: send() if trainer.state.global_step < 6 else None
    trainer.train()
    assert len(ratios(trainer)) == 6  # a batch every second step; that of step 6 is sampled with weights of step 4
    assert near_one(ratios(trainer)[:3], 1e-4)
    assert not any(near_one([pair], 0.1) for pair in ratios(trainer)[3:])


def test_the_engine_is_in_bfloat16_by_itself_and_as_near(make, ratios):
    trainer = make()
    assert trainer.vllm_generation.llm.llm_engine.model_config.dtype == torch.bfloat16
    trainer.train()
    assert len(ratios(trainer)) == 6 and near_one(ratios(trainer), 0.05)


def test_replayed_rows_are_weighted_by_the_engines_logprobs(make):
    """In bfloat16, where they differ from what the trainer computes for the same tokens."""
    trainer = make("grpo_offpolicy", is_level="sequence")
    generate, give, sampled, batches = trainer.vllm_generation.generate, trainer._generate_and_score_completions, {}, []

    def generated(*args, **kwargs):
        result = generate(*args, **kwargs)
        sampled.update({tuple(ids): [p for (p,) in logps] for ids, logps in zip(result[1], result[2], strict=True)})
        return result

    def given(inputs):
        batches.append(give(inputs))
        return dict(batches[-1])

    trainer.vllm_generation.generate, trainer._generate_and_score_completions = generated, given
    trainer.train()
    replayed = 0
    for batch in batches:
        for row in batch["is_replay"].nonzero()[:, 0].tolist():
            mask = batch["completion_mask"][row].bool()
            engine = torch.tensor(sampled[tuple(batch["completion_ids"][row][mask].tolist())])
            assert torch.equal(batch["sampling_per_token_logps"][row][mask], engine)
            ratio = (batch["old_per_token_logps"][row][mask] - engine).sum().exp()  # sequence: the whole completion
            torch.testing.assert_close(batch["importance_weights"][row], ratio.clamp(max=5.0))
            replayed += 1
    assert replayed == 5 * 8
    fresh = batches[-1]
    new = ~fresh["is_replay"]
    assert not torch.equal(fresh["sampling_per_token_logps"][new], fresh["old_per_token_logps"][new])


@pytest.mark.parametrize("name", ["ppo", "grpo_offpolicy"])
def test_resume_is_exact(name, make, tmp_path, in_float32):
    whole = make(name, folder=tmp_path / "whole", max_steps=8, save_strategy="steps", save_steps=4)
    whole.train()
    resumed = make(name, folder=tmp_path / "resumed", max_steps=8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 8


def test_samples_depend_on_the_seed(make):
    """Alone, an engine begins with the same random numbers in every run."""
    sampled = []
    for seed in (1, 2, 1):
        trainer = make(seed=seed, max_steps=2)
        prompts = [trainer.processing_class("lamp")["input_ids"]] * 4
        sampled.append(trainer.vllm_generation.generate(prompts, None, 4)[1])
    assert sampled[0] == sampled[2] != sampled[1]


def test_the_launcher_trains_the_tiny_model_with_it(composed, few, tmp_path):
    from rlhf_trl_ext.stages.train import train

    asked = ["algorithm=grpo", "model=tiny", "reward=gold", *few, f"output_root={tmp_path}", "++args.use_vllm=true"]
    asked += ["++args.vllm_gpu_memory_utilization=0.1", "++args.vllm_max_model_length=256", "++args.num_generations=4"]
    record = train(composed("train", *asked, "++args.max_completion_length=8"))
    rows = [json.loads(line) for line in Path(record["folder"], "metrics.jsonl").read_text().splitlines()]
    assert any("sampling/importance_sampling_ratio/mean" in row for row in rows)


def test_an_engine_too_short_for_prompt_and_completion_is_refused(make):
    """vLLM alone cuts such completions where its length ends, and nothing says so."""
    with pytest.raises(ValueError, match="vllm_max_model_length=12: the longest prompt has "):
        make(vllm_max_model_length=12).train()
