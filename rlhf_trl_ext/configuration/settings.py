"""Types and ranges of the keys that the launchers read themselves, which no class states.

A key of a class is checked against that class (`checks.py`); one of TRL's numbers by `ranges.py`.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, InterpolationToMissingValueError
from pydantic import AfterValidator, Field, Strict, TypeAdapter, ValidationError

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
    "pipeline": {"policies": Named, "baseline": Text, "jobs": Count | None, **COMPARED, **COMPILED, **PAIRS},
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
        "view": Views,
        "split": Literal["train", "evaluation"],
        "rows": Natural,
        "output": OutputFile | None,
    },
    "report": {
        "folder": Text,
        "logs": Texts,
        "compare": Text | None,
        "algorithms": Texts,
        "metrics": Texts,
        "output": OutputFile | None,
        "pdf": Flag | None,
    },
    "dashboard": {"host": Text, "port": Port},
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
LONGEST = 200  # characters of a value in a message
NEEDED = {name: ("args", "model", "dataset", "trainer") for name in ("train", "plan")}


def refusals(config: DictConfig, launcher: str) -> list[str]:
    """One sentence for every key of `launcher` whose value has the wrong type or lies outside its range."""
    types = SHARED | OF_LAUNCHER.get(launcher, {})
    errors = [
        f"{key} is missing: {'arguments are given one by one, ' if key == 'args' else ''}{key}.<name>=<value>."
        for key in NEEDED.get(launcher, ())
        if not OmegaConf.is_config(OmegaConf.select(config, key))
    ]
    absent = [error.partition(" ")[0] for error in errors]
    for key, kind in types.items():
        if key in absent:
            continue
        try:
            errors += _refusal(key, _value(config, key), kind) if _present(config, key) else []
        except InterpolationToMissingValueError:  # of a value that has none yet, which is refused where it is needed
            continue
        except InterpolationResolutionError as error:
            errors.append(f"{key}: its ${{...}} cannot be resolved ({' '.join(str(error).split())}); give a value.")
    return errors + list(_unknown(config, types))


def _present(config: DictConfig, key: str) -> bool:
    """Whether the key is there with a value of its own; one that follows from a missing one is not."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_dict(node) or name not in node or OmegaConf.is_missing(node, name):
        return False
    return OmegaConf.select(config, key, throw_on_missing=False) is not None or node[name] is None


def _value(config: DictConfig, key: str):
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _refusal(key: str, value, kind) -> list[str]:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as refused:
        error = refused.errors()[0]
        if len(formatted(value)) > LONGEST and isinstance(value, dict):  # the part of it that is wrong
            value = error["input"]
            key = ".".join(map(str, (key, *error["loc"])))
        setting = key if error["type"] == "value_error" and kind is Built else f"{key}={formatted(value)}"
        return [f"{setting}: {_in_words(error)}{' (or null)' if _optional(kind) else ''}."]
    return []


def _in_words(error: dict) -> str:
    """A pydantic error in the project's wording."""
    limit = next(iter(error.get("ctx", {}).values()), None)
    limit = f"{limit:g}" if isinstance(limit, float) else limit
    words = {
        "bool_type": "true or false is needed",
        "int_type": "a whole number is needed",
        "float_type": "a number is needed",
        "string_type": "a word is needed",
        "list_type": "a list is needed, [a,b]",
        "dict_type": "names and values are needed, {a: b}",
        "too_short": "at least one is needed",
        "string_too_short": "a word is needed",
        "greater_than": f"above {limit} is needed",
        "greater_than_equal": f"at least {limit} is needed",
        "multiple_of": f"a multiple of {limit} is needed",
        "less_than": f"below {limit} is needed",
        "less_than_equal": f"at most {limit} is needed",
        "literal_error": f"allowed are {limit}",
    }
    message = error["msg"].removeprefix("Value error, ")
    return words.get(error["type"], f"{message[0].lower()}{message[1:]}")


def _optional(kind) -> bool:
    return type(None) in getattr(kind, "__args__", ())


def formatted(value) -> str:
    """A value as the command line has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {formatted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(formatted, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _unknown(config: DictConfig, types: dict[str, Any]) -> Iterator[str]:
    """Unknown keys below `samples`, `pairs` and similar sections."""
    for parent in dict.fromkeys(key.rpartition(".")[0] for key in types if "." in key):
        node = OmegaConf.select(config, parent)
        known = [key.rpartition(".")[2] for key in types if key.startswith(f"{parent}.")]
        if parent in ("held_out", "budget", "args", "reward") or not OmegaConf.is_dict(node):
            continue
        for name in set(node) - set(known):
            close = difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"allowed are {', '.join(known)}."
            yield f"{parent}.{name}={formatted(node[name])}: no such key; {hint}"
