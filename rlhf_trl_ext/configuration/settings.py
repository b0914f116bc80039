"""Types and ranges of the keys that the launchers read themselves, which no class states.

A key of a class is checked against that class (`checks.py`); one of TRL's numbers by `ranges.py`.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict

from rlhf_trl_ext.configuration.paths import creatable
from rlhf_trl_ext.quantities import Amount, Count, Natural, Positive, Seed

Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Texts = list[Text]
Views = Literal["demonstrations", "preferences", "prompts", "unpaired"]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]


def _distinct(items: list) -> list:
    if len(set(items)) < len(items):
        raise ValueError("every one is named once")
    return items


def _no_baseline(models: dict) -> dict:
    if "baseline" in models:
        raise ValueError("this name is the baseline's own; give the policy another one")
    return models


def _all(shares: dict) -> dict:
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"they sum to {sum(shares.values()):g}, and shares sum to 1; an unwanted one is 0")
    return shares


def _built(node: dict) -> dict:
    if "_target_" not in node:
        raise ValueError("{_target_: module.Class, ...} is needed")
    return node


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError("it names a folder; letters, digits, . - and _ are allowed, and a letter or digit first")
    return name


def _writable(path: str) -> str:
    if message := creatable(path):
        raise ValueError(message)
    return path


def _writable_file(path: str) -> str:
    if Path(path).is_dir():
        raise ValueError("it is a folder, and a file is needed; give another path")
    return _writable(path)


Shares = Annotated[
    dict[Literal["sft", "reward", "rl", "evaluation"], Annotated[float, Field(ge=0, le=1)]], AfterValidator(_all)
]
Models = Annotated[dict[Text, Text], Field(min_length=1), AfterValidator(_no_baseline)]
Named = Annotated[Texts, Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Mapping = dict[str, Any]
Built = Annotated[Mapping, AfterValidator(_built)]
Name = Annotated[Text, AfterValidator(_file_name)]
Output = Annotated[Text, AfterValidator(_writable)]
OutputFile = Annotated[Text, AfterValidator(_writable_file)]

SAMPLES = {
    "samples.max_prompts": Count | None,
    "samples.max_new_tokens": Count,
    "samples.temperature": Amount,
    "samples.batch_size": Count,
}
COMPARED = SAMPLES | {"samples.max_prompts": Annotated[int, Strict(), Field(ge=2)] | None}  # a win rate needs two pairs
COMPILED = {"samples.compiled_generation": Literal["auto", "on", "off"]}
PAIRS = {
    "pairs.policies": Texts,
    "pairs.files": Texts,
    "pairs.view": Literal["demonstrations", "preferences", "prompts"],
    "pairs.split": Literal["train", "evaluation"],
    "pairs.completions": Count,
    "pairs.max_prompts": Count | None,
    "pairs.max_pairs": Count | None,
    "pairs.max_new_tokens": Count,
    "pairs.temperature": Amount,
    "pairs.batch_size": Count,
}
# Of every launcher that has the key.
SHARED = {
    "name": Name,
    "args": Mapping,
    "model": Built,
    "dataset": Built,
    "judge": Built,
    "labelling": Built,
    "reviser": Built,
    "reward": Mapping,
    "reward.path": Text | None,
    "reward.functions": list[Any],
    "stages": Mapping,
    "samples": Mapping,
    "pairs": Mapping,
    "hub": Built,
    "seed": Seed,
    "shares": Shares | None,
    "output_root": Output,
    "output_dir": Output | None,
    "overwrite": Flag,
    "evaluate": Flag,
    "dry_run": Flag,
    "trust": Texts,
    "trust_tasks": Flag,
    "step_timeout": Positive | None,
    "completion_length": Count,
    "shown_rows": Natural,
    "num_processes": Count | None,
    "held_out.prompts": Count,
    "held_out.every": Positive,
    "monitor": Built | None,
    "profile": Built | None,
    "callbacks": dict[str, Built],
    "budget.sampled_tokens": Count | None,
    "budget.gradient_steps": Count | None,
    "budget.seconds": Positive | None,
}
OF_LAUNCHER: dict[str, dict[str, Any]] = {
    "pipeline": {
        "policies": Named,
        "baseline": Text,
        "finished": dict[Text, Text] | None,
        "jobs": Count | None,
        **COMPARED,
        **COMPILED,
        **PAIRS,
    },
    "benchmark": {
        "algorithms": Named,
        "datasets": Named,
        "seeds": Seeds,
        "threshold": Positive | Text | None,
        "aa_control": Text | None,
        "held_out_rewards": dict[Text, Text],
        "tune.seeds": Seeds,
        "tune.metric": Literal["win_rate", "length_controlled_win_rate", "gold_reward", "reward"],
        "tune.tries": Annotated[list[Annotated[dict[Text, float | Text], Field(min_length=1)]], Field(min_length=1)],
        "tune.optional": Texts,
        "jobs": Count | None,
        "settings": dict[str, Mapping],
        **COMPARED,
        **COMPILED,
        **PAIRS,
    },
    "landscapes": {
        "landscapes": Named,
        "algorithms": Named,
        "seeds": Seeds,
        "selection_seeds": Seeds,
        "learning_rates": Annotated[list[Positive], Field(min_length=1)],
        "critic_factors": list[Positive],
        "iterations": dict[str, Count],
        "processes": Count | None,
        "tasks": dict[str, Built],
        "settings": dict[str, Mapping],
        "task": Mapping,
        "task.questions": Count,
        "task.actions": Annotated[int, Strict(), Field(ge=2)],
        "task.length": Count,
        "policy": Mapping,
        "policy.width": Annotated[int, Strict(), Field(ge=2, multiple_of=2)],
        "policy.initial_std": Positive,
        "batch": Mapping,
        "batch.questions": Count,
        "batch.completions": Annotated[int, Strict(), Field(ge=2)],
    },
    "train": {"view": Views},
    "generate": {"policy": Text, "reference": Text, "args.use_cpu": Flag, **SAMPLES, **COMPILED},
    "label": {"args.use_cpu": Flag, **PAIRS},
    "revise": {"args.use_cpu": Flag, **PAIRS},
    "plan": {
        "plan": Mapping,
        "num_gpus": Count,
        "verbose": Flag,
        "plan.card": Positive | Text,
        "plan.reserved": Amount,
        "plan.prompt_length": Count,
        "plan.length": Count,
        "plan.logits": Literal["fused", "whole"],
        "plan.architecture": dict[str, Any],
    },
    "chat": {"policy": Text | None, "policies": dict[Text, Text] | None, "system": Text | None, **SAMPLES},
    "answer": {
        "policy": Text,
        "questions": Text | None,
        "references": Text | None,
        "output": OutputFile,
        "max_questions": Count | None,
        **SAMPLES,
    },
    "capability": {
        "baseline": Text,
        "policies": Models,
        "tasks": Named,
        "include_path": Text | None,
        "limit": Count | Annotated[float, Strict(), Field(gt=0, lt=1)] | None,
        "batch_size": Count,
        "output": OutputFile,
    },
    "evaluate": {
        "results": Text | None,
        "baseline": Text,
        "policies": Models,
        "pairs": Literal["baseline", "all"],
        "further_judges": Texts,
        "anchor": Text | None,
        "labels": Text | None,
        "aa_control": Text | None,
        "injection_pairs": Natural,
        "output": OutputFile | None,
    },
    "adopt": {"folder": Text},
    "data": {
        "view": Views | None,
        "split": Literal["train", "evaluation"],
        "rows": Natural,
        "output": OutputFile | None,
    },
    "report": {
        "folder": Text | Named,
        "paper": Output | None,
        "logs": Texts,
        "compare": Text | None,
        "algorithms": Texts,
        "metrics": Texts,
        "output": OutputFile | None,
        "pdf": Flag | None,
    },
    "dashboard": {"host": Text, "port": Port, "days": Positive},
    "annotate": {
        "baseline": Text,
        "policies": Models,
        "output": Output,
        "max_pairs": Count | None,
        "host": Text,
        "port": Port,
        "accounts_variable": Text,
    },
    "monitor": {
        "traffic": Text,
        "hours": Positive | None,
        "window": Count,
        "rules": dict[Text, dict[Text, Any]],
        "output": OutputFile | None,
    },
    "export": {
        "policy": Text,
        "format": Literal["onnx", "onnx-model", "torch", "torchscript", "tensorrt"],
        "precision": Literal["fp32", "fp16", "int8", "int4"],
        "output": Output | None,
        "build": Flag,
        "prompts": Count,
        "max_new_tokens": Count,
    },
    "serve": {
        "policy": Text | None,
        "policies": Annotated[dict[Text, Text], Field(min_length=1)] | None,
        "shares": dict[Text, Amount] | None,
        "engine": Literal["transformers", "vllm", "onnx", "url"],
        "engine_options": Texts,
        "max_batch_size": Count | None,
        "max_concurrent_requests": Count,
        "max_body_bytes": Count,
        "max_new_tokens": Count,
        "timeout": Positive,
        "engine_wait": Positive,
        "host": Text,
        "port": Annotated[int, Strict(), Field(ge=0, le=65535)],
        "key_variable": Text,
        "record": Flag,
        "traffic": OutputFile,
        "keep_days": Positive | None,
        "redact": Built | None,
        "reward.path": Text | None,
        "reward.share": Positive,
    },
}
