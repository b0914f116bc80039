"""What a configuration may build. A stage's folder can be anyone's, and a `_target_` runs what it names.

Built without a word are this project's own classes and functions; configurations, trainers and callbacks of TRL,
transformers, PEFT and datasets; and TRL's reward functions. Every other module needs `trust=[<module>]`, and code that
comes with a model from the hub `trust=[remote_code]`, on the command line: a file cannot vouch for itself.
"""

import inspect
import re
from collections.abc import Iterator

from omegaconf import DictConfig, ListConfig, OmegaConf

OWN = ("rlhf_trl_ext", "evaluation")
# Of this project, classes of these modules; what runs stages, writes or removes files is not for a configuration.
OPEN = ("callbacks", "data", "judging", "models.loading", "rewards", "trainers")
OPEN = (*(f"rlhf_trl_ext.{room}" for room in OPEN), "evaluation.quality", "evaluation.comparison.landscapes.rewards")
# Of those, modules whose classes write to any path that they are given.
CLOSED = ("rlhf_trl_ext.callbacks.records", "rlhf_trl_ext.judging.record", "rlhf_trl_ext.judging.session")
FUNCTIONS = ("rlhf_trl_ext.rewards", "rlhf_trl_ext.models.tiny")
PACKAGES = ("trl", "transformers", "peft", "datasets")
REFERENCES = ("hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.get_object")
REMOTE = "remote_code"


def refusals(config: DictConfig, trusted: list[str]) -> list[str]:
    """One sentence for every `_target_`, at any depth, that is neither allowed nor in `trusted`. Nothing is built.

    trusted: modules, by their whole name or one of its beginnings, and `remote_code`.
    """
    errors = []
    for where, node in _nodes(config, ""):
        if "_target_" in node and isinstance(target := _value(node, "_target_"), str):
            names = [target] + ([str(_value(node, "path"))] if target in REFERENCES else [])
            reasons = [reason for name in names if (reason := _reason(name, trusted))]
            errors += [f"{where}._target_={target}: {reason}" for reason in reasons[:1]]
        if REMOTE not in trusted:
            errors += [f"{where}.{key}={_value(node, key)}: {message}" for key, message in _remote(node)]
    return errors


def arguments(config: DictConfig) -> list[str]:
    """The word of a command line, handed on to a process that runs a part of it."""
    trusted = list(config.get("trust") or [])
    return [f"trust=[{','.join(trusted)}]"] if trusted else []


def _nodes(node, where: str) -> Iterator[tuple[str, DictConfig]]:
    """(key, mapping) of every mapping at or below `node`; interpolations are not followed, as they lead inside it."""
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        yield where, node
        for key in node:
            yield from _nodes(node._get_node(key), f"{where}.{key}".lstrip("."))
    elif isinstance(node, ListConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for index in range(len(node)):
            yield from _nodes(node._get_node(index), f"{where}[{index}]")


def _value(node: DictConfig, key: str):
    return None if OmegaConf.is_missing(node, key) else node.get(key)


def _remote(node: DictConfig) -> Iterator[tuple[str, str]]:
    """(key, reason) of the settings by which transformers runs code that comes with a model."""
    message = f"code that comes from the hub would run; if you have read it, give trust=[{REMOTE}]."
    for key in ("trust_remote_code", "use_kernels", "allow_all_kernels"):
        if key in node and _value(node, key):
            yield key, message
    if "/" in str(_value(node, "attn_implementation") if "attn_implementation" in node else ""):
        yield "attn_implementation", message


def _reason(name: str, trusted: list[str]) -> str | None:
    if any(name == module or name.startswith(f"{module}.") for module in trusted) or name in REFERENCES:
        return None
    package = name.partition(".")[0]
    if package not in OWN + PACKAGES:
        module = package if re.fullmatch(r"\w+", package) else "<module>"
        return (
            "it is none of this project, TRL, transformers, peft or datasets, and building it runs its code; "
            f"if you know it, give trust=[{module}] on the command line."
        )
    from hydra.utils import get_object

    try:
        target = get_object(name)
    except Exception:
        return None
    return (
        None
        if _harmless(target)
        else (
            f"of {package}, only configurations, trainers, callbacks, data, rewards and judges are built; "
            f"if you know what this does, give trust=[{name}] on the command line."
        )
    )


def _below(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def _harmless(target) -> bool:
    """Whether this object is of a kind that runs nothing but its own training or reading."""
    home = getattr(target, "__module__", None) or ""
    if home.partition(".")[0] in OWN:
        open_rooms = OPEN if inspect.isclass(target) else FUNCTIONS
        return _below(home, open_rooms) and not _below(home, CLOSED)
    if home.partition(".")[0] not in PACKAGES:
        return False
    if not inspect.isclass(target):
        return home.startswith("trl.rewards.")
    import dataclasses

    from transformers import PreTrainedConfig, Trainer, TrainerCallback

    return dataclasses.is_dataclass(target) or issubclass(target, PreTrainedConfig | Trainer | TrainerCallback)
