"""Arguments of other frameworks as overrides of this project, and those that have no counterpart."""

import contextlib
import re
import shlex
from pathlib import Path

import yaml

SAME = "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps warmup_steps"
SAME += " lr_scheduler_type weight_decay max_grad_norm bf16 logging_steps save_steps optim beta num_generations"
COMMON = {name: f"args.{name}" for name in SAME.split()}
COMMON |= {"seed": "seed", "model_name_or_path": "model.model_name_or_path", "lora_alpha": "model.lora_alpha"}
COMMON |= {"lora_dropout": "model.lora_dropout", "max_samples": "dataset.max_samples"}
# Framework -> its argument -> the key here, or key -> {value: override}.
TABLES: dict[str, dict[str, str | dict]] = {
    "TRL": {**COMMON, "lora_r": "model.lora_r", "use_peft": "model.use_peft", "load_in_4bit": "model.load_in_4bit"},
    "LLaMA-Factory": {
        **COMMON,
        "lora_rank": "model.lora_r",
        "pref_beta": "args.beta",
        "cutoff_len": "dataset.max_tokens",
        "dataset_dir": "dataset.path",
        "dataset": "dataset.subset",
        "stage": {name: f"algorithm={name}" for name in ("sft", "dpo", "kto", "ppo")} | {"rm": "algorithm=reward"},
        "finetuning_type": {"lora": "model.use_peft=true", "full": "model.use_peft=false"},
    },
    "Axolotl": {
        **COMMON,
        "base_model": "model.model_name_or_path",
        "num_epochs": "args.num_train_epochs",
        "micro_batch_size": "args.per_device_train_batch_size",
        "lr_scheduler": "args.lr_scheduler_type",
        "optimizer": "args.optim",
        "sequence_len": "dataset.max_tokens",
        "lora_r": "model.lora_r",
        "rl_beta": "args.beta",
        "dpo_beta": "args.beta",
        "rl": {name: f"algorithm={name}" for name in ("dpo", "kto", "grpo")},
        "adapter": {"lora": "model.use_peft=true", "qlora": "model.use_peft=true model.load_in_4bit=true"},
    },
    "verl": {
        "actor_rollout_ref.model.path": "model.model_name_or_path",
        "actor_rollout_ref.actor.optim.lr": "args.learning_rate",
        "actor_rollout_ref.actor.kl_loss_coef": "args.beta",
        "actor_rollout_ref.rollout.n": "args.num_generations",
        "actor_rollout_ref.rollout.temperature": "args.temperature",
        "data.train_files": "dataset.path",
        "data.max_prompt_length": "dataset.max_prompt_tokens",
        "data.max_response_length": "completion_length",
        "trainer.total_training_steps": "args.max_steps",
        "trainer.total_epochs": "args.num_train_epochs",
        "algorithm.adv_estimator": {"grpo": "algorithm=grpo", "rloo": "algorithm=rloo", "gae": "algorithm=ppo"},
    },
    "OpenRLHF": {
        **COMMON,
        "pretrain": "model.model_name_or_path",
        "dataset": "dataset.path",
        "prompt_data": "dataset.path",
        "actor_learning_rate": "args.learning_rate",
        "micro_train_batch_size": "args.per_device_train_batch_size",
        "max_epochs": "args.num_train_epochs",
        "max_len": "dataset.max_tokens",
        "n_samples_per_prompt": "args.num_generations",
        "init_kl_coef": "args.beta",
        "lora_rank": "model.lora_r",
        "reward_pretrain": "reward.path",
        "module": {
            f"openrlhf.cli.train_{module}": f"algorithm={name}"
            for module, name in {"sft": "sft", "rm": "reward", "dpo": "dpo", "kto": "kto", "ppo_ray": "ppo"}.items()
        },
    },
}
# Keys of rows that OpenRLHF is told, and what they are called here.
OPENRLHF_COLUMNS = {"input_key": "prompt", "prompt_key": "prompt", "chosen_key": "chosen", "rejected_key": "rejected"}


def overrides(framework: str, arguments: dict) -> tuple[list[str], list[str]]:
    """Overrides of `launchers.train`, and `argument=value` of those that have no counterpart. given: flat."""
    table, settings, lacking, columns = TABLES.get(framework, TABLES["TRL"]), {}, [], {}
    for name, value in arguments.items():
        if value is None or value == "":
            continue
        target = table.get(name)
        if framework == "OpenRLHF" and name in OPENRLHF_COLUMNS:
            columns[OPENRLHF_COLUMNS[name]] = value
        elif isinstance(target, str):
            settings[target] = f"{target}={_text(value)}"
        elif target is not None and str(value) in target:
            settings[name] = target[str(value)]
        else:
            lacking.append(f"{name}={_text(value)}")
    if columns:
        pairs = ", ".join(f"{role}: {name}" for role, name in columns.items())
        settings["dataset.columns"] = f"dataset.columns={{{pairs}}}"
    if "dataset.path" in settings or "dataset.subset" in settings:
        settings = {"dataset": "dataset=file", **settings}
    return list(settings.values()), lacking


def read(framework: str, folder: Path) -> dict:
    """Arguments that a run's folder holds, flat: a YAML of the framework, or the flags of a shell script.

    `training_args.bin` is a pickle, which could run code, and is never opened.
    """
    names = {"LLaMA-Factory": ("*.yaml",), "Axolotl": ("*.y*ml",), "verl": (".hydra/config.yaml", "config.yaml")}
    for pattern in names.get(framework, ()):
        for path in sorted(folder.glob(pattern)):
            content = None
            with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):  # of another program, or damaged
                content = yaml.safe_load(path.read_text())
            if isinstance(content, dict):
                return _flat(content) if framework == "verl" else content
    if framework == "OpenRLHF":
        for path in sorted(folder.glob("*.sh")):
            with contextlib.suppress(ValueError):  # quotes that are not closed
                return _flags(path.read_text(errors="replace"))
    return {}


def _flags(script: str) -> dict:
    """`--name value` and `--name` of a shell command, over lines that end with a backslash."""
    words = shlex.split(script.replace("\\\n", " "), comments=True)
    flags, name = {}, None
    for word in words:
        if flag := re.fullmatch(r"--([\w.-]+)(?:=(.*))?", word):
            name = flag[1].rpartition(".")[2].replace("-", "_")
            flags[name] = True if flag[2] is None else flag[2]
        elif name is not None and flags[name] is True:
            flags[name] = word
    return flags


def _flat(node: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in node.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _text(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
