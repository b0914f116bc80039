"""Ranges of the numbers that TRL, transformers and PEFT take without looking, each with its reason.

Fields of this project's own classes state theirs beside the argument, in the field's metadata (`range`, `words`) or in
the annotation: `Annotated[float, Field(ge=0, le=1)]`.
"""

import dataclasses
import math
import operator

TINY = 1e-9  # as fields of ours write "above 0"
POSITIVE, SHARE, COUNT, AMOUNT = {"gt": 0}, {"ge": 0, "le": 1}, {"ge": 1}, {"ge": 0}
# Field -> limits and their reason; a list is checked item by item, null and words are left to the types.
FIELDS: dict[str, tuple[dict, str]] = {
    # optimiser and schedule
    "learning_rate": ({"gt": 0, "le": 1}, "0 learns nothing, less climbs the loss, more than 1 ends in not-a-number"),
    "critic_learning_rate": ({"gt": 0, "le": 1}, "as learning_rate"),
    "score_scale": (POSITIVE, "rewards are divided by it"),
    "score_reference_batches": (COUNT, "batches that are sampled before step 1"),
    "weight_decay": (SHARE, "the share that weights shrink by, per unit of learning rate"),
    "adam_beta1": ({"ge": 0, "lt": 1}, "a running mean's memory"),
    "adam_beta2": ({"ge": 0, "lt": 1}, "a running mean's memory"),
    "adam_epsilon": (POSITIVE, "it keeps a division from 0"),
    "max_grad_norm": (AMOUNT, "a length; 0 does not clip"),
    "warmup_steps": (AMOUNT, "steps, or below 1 a share of the run"),
    "label_smoothing_factor": ({"ge": 0, "lt": 1}, "a share of the probability"),
    "neftune_noise_alpha": (AMOUNT, "the size of noise"),
    # size of the run
    "num_train_epochs": (POSITIVE, "a run takes steps"),
    "max_steps": ({"ge": -1}, "-1 leaves the length to num_train_epochs; 0 is no run"),
    "per_device_train_batch_size": (COUNT, "rows"),
    "per_device_eval_batch_size": (COUNT, "rows"),
    "gradient_accumulation_steps": (COUNT, "batches a step"),
    "eval_accumulation_steps": (COUNT, "batches"),
    "save_total_limit": (COUNT, "checkpoints that are kept; null keeps all"),
    "logging_steps": (POSITIVE, "steps, or below 1 a share of the run"),
    "save_steps": (POSITIVE, "steps, or below 1 a share of the run"),
    "eval_steps": (POSITIVE, "steps, or below 1 a share of the run"),
    "eval_delay": (AMOUNT, "steps or epochs"),
    "torch_empty_cache_steps": (COUNT, "steps"),
    "seed": ({"ge": 0, "lt": 2**32}, "NumPy's seeds"),
    "data_seed": ({"ge": 0, "lt": 2**32}, "NumPy's seeds"),
    "dataloader_num_workers": (AMOUNT, "processes; 0 reads in this one"),
    "dataloader_prefetch_factor": (COUNT, "batches"),
    "dataset_num_proc": (COUNT, "processes"),
    "ddp_timeout": (POSITIVE, "seconds"),
    # lengths
    "max_length": (COUNT, "tokens; null leaves rows whole"),
    "max_prompt_length": (COUNT, "tokens"),
    "max_completion_length": (COUNT, "tokens"),
    "pad_to_multiple_of": (COUNT, "tokens"),
    # sampling
    "num_generations": ({"ge": 2}, "an advantage compares at least 2 completions of a prompt"),
    "num_generations_eval": (COUNT, "completions of a prompt"),
    "generation_batch_size": (COUNT, "completions"),
    "steps_per_generation": (COUNT, "batches"),
    "num_iterations": (COUNT, "passes over a batch; 0 learns from none"),
    "temperature": (POSITIVE, "log-probabilities are divided by it"),
    "top_p": ({"gt": 0, "le": 1}, "a share of the probability"),
    "top_k": ({"ge": -1}, "tokens; 0 and -1 take all"),
    "min_p": (SHARE, "a share of the largest probability"),
    "repetition_penalty": (POSITIVE, "log-probabilities are divided by it"),
    "vllm_gpu_memory_utilization": ({"gt": 0, "le": 1}, "a share of the GPU's memory"),
    "vllm_tensor_parallel_size": (COUNT, "GPUs"),
    "vllm_max_model_length": (COUNT, "tokens"),
    "vllm_server_port": ({"ge": 1, "le": 65535}, "a port"),
    "vllm_group_port": ({"ge": 1, "le": 65535}, "a port"),
    "vllm_server_timeout": (POSITIVE, "seconds"),
    "vllm_importance_sampling_clip_max": (POSITIVE, "a ratio"),
    "vllm_importance_sampling_clip_min": (AMOUNT, "a ratio"),
    "max_tool_calling_iterations": (COUNT, "rounds"),
    # losses
    "beta": (AMOUNT, "below 0 the policy is paid for leaving its reference; 0 has no penalty"),
    "epsilon": (POSITIVE, "a width around 1 that ratios are clipped to"),
    "epsilon_high": (POSITIVE, "a width around 1 that ratios are clipped to"),
    "delta": ({"gt": 1}, "the upper bound of a ratio that has no sign"),
    "label_smoothing": ({"ge": 0, "lt": 0.5}, "the share of labels that are wrong; from 0.5 on the worse is preferred"),
    "desirable_weight": (POSITIVE, "a loss of no or negative weight learns nothing or the opposite"),
    "undesirable_weight": (POSITIVE, "a loss of no or negative weight learns nothing or the opposite"),
    "loss_weights": (AMOUNT, "a loss of negative weight learns the opposite"),
    "reward_weights": (AMOUNT, "a reward of negative weight is maximised downwards"),
    "center_rewards_coefficient": (AMOUNT, "a penalty's weight"),
    "router_aux_loss_coef": (AMOUNT, "a loss's weight"),
    "ld_alpha": (SHARE, "the weight of what the longer reply has over the shorter"),
    "ref_model_mixup_alpha": (SHARE, "a mixture's share"),
    "ref_model_sync_steps": (COUNT, "steps"),
    "top_entropy_quantile": ({"gt": 0, "le": 1}, "the share of tokens that are learnt from"),
    "entropy_coef": (AMOUNT, "a bonus's weight"),
    "off_policy_mask_threshold": (AMOUNT, "a divergence"),
    "sapo_temperature_neg": (POSITIVE, "a temperature"),
    "sapo_temperature_pos": (POSITIVE, "a temperature"),
    # adapters
    "lora_r": (COUNT, "a rank"),
    "lora_alpha": (POSITIVE, "a scale"),
    "lora_dropout": ({"ge": 0, "lt": 1}, "the share of activations that are dropped"),
}
# What a class needs that others of the same field do not; the first class in the target's line of ancestors counts.
OF_CLASS: dict[str, dict[str, tuple[dict, str]]] = {
    "DPOConfig": {"beta": (POSITIVE, "the loss is a function of beta times the margin, and constant at 0")},
    "KTOConfig": {"beta": (POSITIVE, "the loss is a function of beta times the margin, and constant at 0")},
}
# Closed sets of words that no class states.
CHOICES = {"importance_sampling_level": ("token", "sequence"), "vllm_mode": ("server", "colocate")}
# Fields of TRL that a run here decides otherwise; a value would be dropped.
ELSEWHERE: dict[str, str] = {
    "output_dir": "a run's folder is given by output_dir=<folder>, without args.",
    "resume_from_checkpoint": (
        "a run goes on by itself from the last whole checkpoint of its folder; leave this out, and give "
        "output_dir=<folder> where it is not the default one."
    ),
    "do_train": "a launcher does what its name says; leave this out.",
    "do_eval": "leave this out; evaluate=true evaluates after training, args.eval_strategy during it.",
    "do_predict": "leave this out; `python -m launchers.generate` samples a policy.",
}


def elsewhere(target, key: str, value) -> str | None:
    """What to give instead of a field of TRL's arguments that would be dropped, or None."""
    return ELSEWHERE.get(key) if is_training_arguments(target) and value is not None else None


def is_training_arguments(target) -> bool:
    """Whether a class is transformers' TrainingArguments or made of it."""
    return dataclasses.is_dataclass(target) and "per_device_train_batch_size" in target.__dataclass_fields__


def refusal(target, key: str, value) -> str | None:
    """Why `target` cannot take `value` for its field `key`, or None. target: a dataclass of TRL, or one of ours."""
    if not dataclasses.is_dataclass(target):
        return None
    own = target.__dataclass_fields__[key].metadata
    if "range" in own:
        return None if value in own["words"] else _beside(value, *own["range"], own["words"], own["help"])
    ancestors = [cls.__name__ for cls in target.__mro__]
    limits = next((OF_CLASS[name][key] for name in ancestors if key in OF_CLASS.get(name, ())), FIELDS.get(key))
    if limits is None:
        return None
    if key == "max_steps" and value == 0:
        return f"-1 or at least 1 is needed: {limits[1]}"
    return outside(value, *limits)


def outside(value, limits: dict, reason: str) -> str | None:
    """What is wrong with a number, or with the first of a list, as `above 0 is needed: <reason>`, or None."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, int | float) and not isinstance(item, bool) and (message := _outside(item, limits)):
            return f"{message}: {reason}"
    return None


def _beside(value, low: float, high: float, words: tuple, reason: str) -> str | None:
    """As `refusal`, for the range that a field of ours states; infinite is a value where the range has no end."""
    if value is None or (isinstance(value, int | float) and low <= value <= high):
        return None
    if low == TINY:
        limits = "above 0" if math.isinf(high) else f"above 0 and at most {high}"
    else:
        limits = f"at least {low}" if math.isinf(high) else f"{low} to {high}"
    return f"{' or '.join([limits, *words])} is needed: {reason.rstrip('.')}"


def _outside(number: float, limits: dict) -> str | None:
    if not math.isfinite(number):
        return "a finite number is needed"
    if all(getattr(operator, name)(number, limit) for name, limit in limits.items()):
        return None
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    return f"{' and '.join(f'{words[name]} {limit}' for name, limit in limits.items())} is needed"
