"""Review of a configuration: every error that it shows by itself, reported together before anything is loaded."""

import re
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from rlhf_trl_ext.configuration import credentials, outputs, trust, unread, values
from rlhf_trl_ext.configuration.checks import ConfigError, build, listed, problems
from rlhf_trl_ext.configuration.paths import checkpoint_refusal, folder_creatable, is_local


def review(config: DictConfig, launcher: str, overrides: list[str]) -> None:
    """Raises ConfigError that lists the mistakes. Nothing is built, and no module is imported that is not trusted.

    launcher: the name of its configuration. overrides: the command line's, which alone can say what is trusted.
    """
    words = {override.lstrip("+").partition("=")[0] for override in overrides}
    in_config = list(config.trust) if OmegaConf.is_list(config.get("trust")) else []
    trusted = in_config if "trust" in words else []
    errors = credentials.refusals(config) + trust.refusals(config, trusted)
    if in_config and not trusted:
        errors.append(
            f"trust={values.formatted(in_config)} stands in a file, which cannot vouch for itself; give it on "
            "the command line."
        )
    if config.get("include_path") and not (config.trust_tasks and "trust_tasks" in words):
        errors.append(
            f"include_path={config.include_path}: the templates and functions of lm-eval's task files run as code; if "
            "you have read them, give trust_tasks=true on the command line."
        )
    if launcher == "pipeline" and OmegaConf.is_list(config.policies) and set(config.policies) == {config.baseline}:
        errors.append(f"policies=[{config.baseline}] is the baseline; name at least one policy beside it.")
    if launcher == "benchmark" and OmegaConf.is_list(config.algorithms):
        if config.baseline in config.algorithms:
            errors.append(f"algorithms: {config.baseline} is the baseline that all are compared with; leave it out.")
        if "threshold" in words and isinstance(config.threshold, str) and config.threshold not in config.algorithms:
            errors.append(f"threshold={config.threshold}: a number is allowed, or {', '.join(config.algorithms)}.")
    errors += [
        f"{override}: algorithm={config.get('name')} has no use for it, as nothing is sampled; leave it out."
        for override in overrides
        if launcher == "train" and override.startswith("held_out=") and config.get("held_out") is None
        if override != "held_out=null"
    ]
    unsafe = bool(errors)
    adapters = OmegaConf.select(config, "model.use_peft", throw_on_missing=False)
    errors += unread.refusals(launcher, overrides, bool(adapters) or launcher not in ("train", "pipeline", "plan"))
    errors += values.refusals(config, launcher)
    errors += outputs.refusals(config, launcher)
    if launcher == "evaluate" and config.results is not None:
        errors += [
            f"{key} and results are both given: give one of them." for key in ("baseline", "policies") if key in words
        ]
    if isinstance(folder := config.get("output_dir"), str) and (reason := folder_creatable(folder)):
        errors.append(f"output_dir={folder}: {reason}.")
    if not unsafe:
        heads = tuple(f".{error.partition(':')[0]}" for error in errors)  # seed=abc is args.seed=abc as well
        errors += [
            error for error in _of_parts(config, launcher, bool(errors)) if not error.partition(":")[0].endswith(heads)
        ]
    if errors:
        raise ConfigError(listed(_by_experiment(errors, overrides)))


def _by_experiment(errors: list[str], overrides: list[str]) -> list[str]:
    """The errors, with one sentence for all keys that an experiment sets of a group of which another file was chosen.

    overrides: as typed; a key that stands among them is the user's own mistake.
    """
    typed = {override.lstrip("+").partition("=")[0]: override for override in overrides}
    if "experiment" not in typed:
        return errors
    kept, foreign = [], {}
    for error in errors:
        match = re.match(r"((\w+)\.[\w.]+)=.*?: (\w+) has no such argument", error)
        if match and match[2] in typed and "={" not in typed[match[2]] and match[1] not in typed:
            foreign.setdefault((typed[match[2]], match[3]), []).append(match[1])
        else:
            kept.append(error)
    return kept + [
        f"{choice} does not go with {typed['experiment']}, which sets {', '.join(keys)}: {name} has no such arguments; "
        f"leave {choice} out, or give the settings that you want of {typed['experiment']} instead of it."
        for (choice, name), keys in foreign.items()
    ]


def _of_parts(config: DictConfig, launcher: str, wrong: bool) -> list[str]:
    """Mistakes of what classes, models and data say themselves; only modules that are trusted are imported.

    wrong: whether something else is; the hub, which may take a minute to answer, is asked only where nothing is.
    """
    errors = []
    for key in config:
        if key in ("hydra", "stages") or not _resolves(config, key):
            continue
        messages = problems(config._get_node(key), key, missing=False)
        if (
            not messages
            and launcher == "train"
            and key in ("model", "dataset")
            and not OmegaConf.missing_keys(config[key])
        ):
            try:
                build(config[key], key)
            except ConfigError as error:
                messages = [str(error)]
        errors += messages
    path = _text(config, "args.deepspeed")
    if launcher in ("train", "plan") and path is not None and not Path(path).is_file():
        errors.append(f"args.deepspeed={path}: no such file; give one in JSON, or deepspeed=zero2.")
    errors += _absent_rewards(config, launcher)
    models = checkpoints(config, launcher)
    for group in ([model for model in models if is_local(model[1])], [m for m in models if not is_local(m[1])]):
        errors += [refusal for model in group if (refusal := checkpoint_refusal(*model))]
        if errors or wrong:
            break
    return errors


def _absent_rewards(config: DictConfig, launcher: str) -> list[str]:
    """Rewards that are null where they are asked for: in training on prompts, and in sampling."""
    key = {"train": "trainer.reward_funcs", "generate": "reward.functions"}.get(launcher)
    functions = OmegaConf.select(config, key, throw_on_missing=False) if key else None
    if not OmegaConf.is_list(functions):
        return []
    return [
        f"reward.functions[{index}]=null: give a reward model (reward=model reward.path=<folder>), reward=gold, or a "
        "function of your own."
        for index in range(len(functions))
        if not OmegaConf.is_missing(functions, index) and functions[index] is None
    ]


def _resolves(config: DictConfig, key: str) -> bool:
    """Whether a part of the configuration has values that can be looked at: not one that waits for another."""
    node = config._get_node(key)
    if not OmegaConf.is_config(node) or node._is_none() or node._is_missing() or node._is_interpolation():
        return False
    try:
        OmegaConf.to_container(node, resolve=True)
    except Exception as error:
        if "MissingMandatory" in str(error) or "InterpolationToMissing" in type(error).__name__:
            return False
        raise
    return True


def checkpoints(config: DictConfig, launcher: str) -> list[tuple[str, str, bool | None, bool]]:
    """(key, folder or hub id, whether a reward model, whether with a tokenizer) of the models that a launcher loads.

    Whether a reward model: None where either will do.
    """
    if launcher == "serve":
        launcher = "chat" if config.engine in ("transformers", "vllm") else ""  # others are given no checkpoints
    select = {"train": ("model.model_name_or_path",), "pipeline": ("model.model_name_or_path",)}
    select |= {
        "generate": ("policy", "reference"),
        "answer": ("policy",),
        "chat": ("policy",),
        "capability": ("baseline",),
        "export": ("policy",),
    }
    kind = None if launcher == "export" else False
    entries = [(key, _text(config, key), kind, True) for key in select.get(launcher, ())]
    entries = [(key, _with_revision(config, key, path), *more) for key, path, *more in entries]
    critic = _text(config, "args.critic_path") if launcher == "train" else None
    if critic and critic != _text(config, "reward.path"):
        entries.append(("args.critic_path", critic, True, False))
    several = {"label": "pairs.policies", "revise": "pairs.policies", "capability": "policies", "chat": "policies"}
    several = (several | {"pipeline": "finished"}).get(launcher)
    policies = OmegaConf.select(config, several, throw_on_missing=False) if several else None
    if OmegaConf.is_config(policies):
        items = policies.items() if OmegaConf.is_dict(policies) else enumerate(policies)
        kind = None if launcher == "pipeline" else False
        entries += [(f"{several}.{name}", str(path), kind, True) for name, path in items]
    rewards = {"train": "trainer.reward_funcs", "generate": "reward.functions"}
    if launcher == "pipeline" and not OmegaConf.select(config, "reward.stage"):
        rewards["pipeline"] = "reward.functions"
    for key in filter(None, (rewards.get(launcher), "held_out.functions")):
        entries += _reward_models(config, key)
    entries += [entry for key in ("judge", "labeller", "reward.judge") if (entry := _judge(config, key))]
    return [entry for entry in entries if entry[1]]


def _with_revision(config: DictConfig, key: str, path: str | None) -> str | None:
    revision = OmegaConf.select(config, "model.model_revision", throw_on_missing=False)
    named = key in ("model.model_name_or_path", "policy") and path and not is_local(path) and "@" not in path
    return f"{path}@{revision}" if named and revision not in (None, "main") else path


def _judge(config: DictConfig, key: str) -> tuple[str, str, bool, bool] | None:
    """The model that a judge loads in this process, if it does."""
    node = OmegaConf.select(config, key, throw_on_missing=False)
    target = str(node.get("_target_")).rpartition(".")[2] if OmegaConf.is_dict(node) else None
    name = {"RewardModelJudge": "path", "LocalJudge": "model"}.get(target)
    path = _text(config, f"{key}.{name}") if name else None
    return (f"{key}.{name}", path, target == "RewardModelJudge", True) if path else None


def _text(config: DictConfig, key: str) -> str | None:
    value = OmegaConf.select(config, key, throw_on_missing=False)
    return value if isinstance(value, str) else None


def _reward_models(config: DictConfig, key: str) -> list[tuple[str, str, bool, bool]]:
    functions = OmegaConf.select(config, key, throw_on_missing=False)
    if not isinstance(functions, ListConfig):
        return []
    name = "reward.path" if _text(config, "reward.path") in [f for f in functions if isinstance(f, str)] else None
    entries = []
    for index, function in enumerate(functions):
        if isinstance(function, str):
            entries.append((name or f"reward.functions[{index}]", function, True, True))
        elif function and str(function.get("_target_")).endswith((".RewardModel", ".AdapterReward")):
            entries.append((f"{key}[{index}].path", _text(function, "path"), True, True))
        elif function and str(function.get("_target_")).endswith(".RewardEnsemble"):
            members = OmegaConf.select(function, "members", throw_on_missing=False)
            named = [(n, path) for n, path in enumerate(members or []) if isinstance(path, str)]
            entries += [(f"{key}[{index}].members[{n}]", path, True, True) for n, path in named]
    return entries
