"""Every private hook of TRL and transformers that this project overrides or reads, with the signature that it expects.

`make trl-latest` runs this file against the newest TRL release: what fails here is what its rewrite broke.
"""

import inspect

import pytest
import torch
from transformers import GenerationMixin, PreTrainedModel, Trainer
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer
from trl.extras.profiling import ProfilingContext
from trl.generation.vllm_generation import VLLMGeneration

# owner, name, parameters, what relies on it
OVERRIDDEN = [
    (GRPOTrainer, "_generate_and_score_completions", "inputs", "all of this project"),
    (
        GRPOTrainer,
        "_calculate_rewards",
        "inputs prompts completions completion_ids_list",
        "Online, HeldOutRewards, Profiler",
    ),
    (
        GRPOTrainer,
        "_generate_single_turn",
        "prompt_ids images multimodal_fields num_generations has_tool_images",
        "generation_states, CompiledGeneration",
    ),
    (RLOOTrainer, "_generate_single_turn", "prompt_ids images multimodal_fields", "CompiledGeneration"),
    (PreTrainedModel, "enable_input_require_grads", "", "register_hooks_once"),
    (
        GenerationMixin,
        "_prepare_static_cache",
        "cache_implementation batch_size max_cache_len prefill_chunk_size model_kwargs",
        "CompiledDecoding",
    ),
    (GenerationMixin, "_update_model_kwargs_for_generation", "outputs model_kwargs ...", "CompiledDecoding"),
    (GRPOTrainer, "_compute_loss", "model inputs", "PPOTrainer, OffPolicyGRPOTrainer"),
    (
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        "model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss ...",
        "PPOTrainer, CompletionLogprobs, OffPolicyGRPOTrainer",
    ),
    (
        RLOOTrainer,
        "_get_per_token_logps_and_entropies",
        "model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss ...",
        "LengthSorting",
    ),
    (GRPOTrainer, "log", "logs start_time", "PPOTrainer, ReplayRecords"),
    (Trainer, "create_optimizer", "model", "CriticMixin"),
    (Trainer, "_load_best_model", "", "CriticMixin"),
    (Trainer, "_load_optimizer_and_scheduler", "checkpoint", "roll_back"),
    (RLOOTrainer, "_generate_and_score_completions", "inputs", "Online"),
    (RLOOTrainer, "_calculate_rewards", "inputs prompts completions completion_ids_list", "Online"),
    (GRPOTrainer, "_generate", "prompts", "Profiler"),
    (RLOOTrainer, "_generate", "prompts", "Profiler"),
    (Trainer, "get_batch_samples", "epoch_iterator num_batches device", "Profiler"),
    (Trainer, "_clip_grad_norm", "model", "Profiler, CriticMixin"),
    (GRPOTrainer, "_prepare_inputs", "generation_batch", "OptimizerBatchLoss"),
    (GRPOTrainer, "training_step", "model inputs num_items_in_batch", "Profiler"),
    (RLOOTrainer, "training_step", "model inputs num_items_in_batch", "Profiler"),
    (Trainer, "_save_checkpoint", "model trial", "Profiler"),
    (ProfilingContext, "__enter__", "", "Profiler"),
    (ProfilingContext, "__exit__", "exc_type exc_val exc_tb", "Profiler"),
    (Trainer, "_save", "output_dir state_dict", "CriticMixin, GRPOVITrainer"),
    (Trainer, "_load_from_checkpoint", "resume_from_checkpoint model", "CriticMixin"),
    (Trainer, "_save_rng_state", "output_dir", "ExactResume, OffPolicyGRPOTrainer, GRPOVITrainer"),
    (Trainer, "_load_optimizer_and_scheduler", "checkpoint", "ExactResume"),
    (
        Trainer,
        "_run_epoch",
        "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ...",
        "ExactResume",
    ),
    (Trainer, "_finalize_training", "trial num_train_samples start_time", "ExactResume"),
    (Trainer, "_load_rng_state", "checkpoint", "ExactResume, OffPolicyGRPOTrainer, GRPOVITrainer"),
    (Trainer, "log", "logs start_time", "ExactResume"),
    (DPOTrainer, "_set_signature_columns_if_needed", "", "SoftLabels"),
    (DPOTrainer, "compute_ref_log_probs", "model inputs", "SoftDPOTrainer"),
    (DPOTrainer, "_compute_loss", "model inputs return_outputs", "SoftDPOTrainer"),
    (RewardTrainer, "_set_signature_columns_if_needed", "", "SoftLabels"),
    (RewardTrainer, "compute_loss", "model inputs return_outputs num_items_in_batch", "SoftRewardTrainer"),
]
TRAINERS = (SFTTrainer, RewardTrainer, DPOTrainer, KTOTrainer, GRPOTrainer, RLOOTrainer)
METRICS = 'self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}'
# owner, method, text that it must contain, what relies on it
READ = [
    (GRPOTrainer, "__init__", "GenerationConfig(**generation_kwargs, disable_compile=True)", "CompiledGeneration"),
    (PreTrainedModel, "enable_input_require_grads", "self._require_grads_hooks = hooks", "register_hooks_once"),
    (GRPOTrainer, "__init__", "self._step = 0", "ExactResume"),
    (GRPOTrainer, "__init__", "self._buffered_inputs = None", "ExactResume"),
    (GRPOTrainer, "log", "logs.update(metrics)", "held_out: evaluate returns the dictionary that log completes"),
    (Trainer, "evaluate", "self.log(output.metrics)", "held_out: evaluate returns the dictionary that log completes"),
    (GRPOTrainer, "__init__", "self._logs = ", "StabilityMonitor: samples of the latest batch"),
    (GRPOTrainer, "__init__", "self.beta = args.beta", "PPOTrainer, AdaptiveKL"),
    (GRPOTrainer, "__init__", "self.eos_token_ids = ", "PPOTrainer, read_past"),
    (GRPOTrainer, "__init__", "self.reward_weights = ", "Online"),
    (GRPOTrainer, "__init__", "self.epsilon_low = ", "PPOTrainer, ReplayRecords"),
    (GRPOTrainer, "__init__", "self._tokenizer = ", "OffPolicyGRPOTrainer"),
    (GRPOTrainer, "__init__", "self._is_vlm = ", "CriticMixin, CompletionLogprobs"),
    (GRPOTrainer, "__init__", "self._entropy_bonus_enabled = ", "CompletionLogprobs"),
    (GRPOTrainer, "__init__", "self.vllm_generation = ", "CriticMixin"),
    (VLLMGeneration, "_init_vllm", "self.llm = LLM(", "check_length_and_seed"),
    (GRPOTrainer, "_generate_and_score_completions", 'output["ref_per_token_logps"]', "PPOTrainer"),
    (GRPOTrainer, "_generate_and_score_completions", 'output["old_per_token_logps"]', "PPOTrainer"),
    (GRPOTrainer, "_compute_loss", "if advantages.dim() == 1:", "PPOTrainer: advantages (B, T)"),
    (GRPOTrainer, "_compute_loss", 'self._metrics[mode]["entropy"].append', "PPOTrainer"),
    (
        GRPOTrainer,
        "_generate_and_score_completions",
        'output["importance_sampling_ratio"] = ',
        "replayed_batch: vLLM's correction",
    ),
    (GRPOTrainer, "_generate_and_score_completions", 'output["sampling_per_token_logps"] = ', "replayed_batch"),
    (GRPOTrainer, "_compute_loss", 'inputs.get("sampling_per_token_logps", old_per_token_logps)', "replay's OPSM"),
    (GRPOTrainer, "_compute_loss", 'inputs["num_items_in_batch"]', "OffPolicyGRPOTrainer recomputes it"),
    (GRPOTrainer, "_tokenize_prompts", "return prompt_ids, images, multimodal_fields", "read_past"),
    (Trainer, "_inner_training_loop", "self._tr_loss = ", "ExactResume"),
    (Trainer, "_inner_training_loop", "self._globalstep_last_logged = ", "ExactResume"),
    (Trainer, "_inner_training_loop", "self._total_loss_scalar = 0.0", "ExactResume"),
    (Trainer, "_finalize_training", "train_loss = self._total_loss_scalar / ", "ExactResume"),
    (Trainer, "_run_epoch", "self._load_rng_state(resume_from_checkpoint)", "ExactResume"),
    *((owner, "__init__", "self._total_train_tokens = 0", "ExactResume") for owner in TRAINERS),
    *((owner, "__init__", METRICS, "all trainers") for owner in TRAINERS),
    (RLOOTrainer, "__init__", "self.reward_weights = ", "Online"),
    (RLOOTrainer, "__init__", "self.beta = args.beta", "AdaptiveKL"),
    (RLOOTrainer, "__init__", "self._step = 0", "ExactResume"),
    (RLOOTrainer, "__init__", "self._buffered_inputs = None", "ExactResume"),
    (DPOTrainer, "_compute_loss", "-F.logsigmoid(self.beta * delta_score)", "SoftDPOTrainer: what the soft term joins"),
    (DPOTrainer, "_compute_loss", "outputs = model(**model_kwargs, labels=labels", "SoftDPOTrainer: the first call"),
    (DPOTrainer, "_compute_loss", "outputs.log_probs[:, -seq_len:]", "SoftDPOTrainer"),
    (RewardTrainer, "compute_loss", "torch.chunk(outputs.logits.squeeze(-1), chunks=2)", "SoftRewardTrainer"),
]


@pytest.mark.parametrize(("owner", "name", "expected", "user"), OVERRIDDEN, ids=[hook[1] for hook in OVERRIDDEN])
def test_hook_has_the_expected_parameters(owner, name, expected, user):
    assert hasattr(owner, name), f"{owner.__name__}.{name} is gone; {user} overrides it."
    found = list(inspect.signature(getattr(owner, name)).parameters)[1:]
    wanted = expected.removesuffix(" ...").split()
    if expected.endswith("..."):
        found = found[: len(wanted)]
    assert found == wanted, f"{owner.__name__}.{name} takes {found}; {user} expects {wanted}."


@pytest.mark.parametrize(("owner", "method", "text", "user"), READ, ids=[f"{use[1]}: {use[2]}" for use in READ])
def test_state_is_where_it_is_read(owner, method, text, user):
    assert text in inspect.getsource(getattr(owner, method)), f"{owner.__name__}.{method}: {text!r}; {user} needs it."


def test_rows_are_shuffled_and_split_with_scalars_left_alone():
    from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

    batch = shuffle_sequence_dict({"values": torch.arange(4)[:, None], "count": torch.tensor(7)})
    halves = split_tensor_dict(batch, 2)
    assert sorted(torch.cat([half["values"] for half in halves])[:, 0].tolist()) == [0, 1, 2, 3]
    assert all(half["count"] == 7 for half in halves)


def test_the_active_deepspeed_configuration_is_where_whole_weights_takes_it_from():
    from transformers.integrations import deepspeed

    for name in ("_hf_deepspeed_config_weak_ref", "unset_hf_deepspeed_config"):
        assert hasattr(deepspeed, name), f"transformers.integrations.deepspeed.{name} is gone; zero.py needs it."
