"""Command-line overrides: which keys they may add, and their precedence over an experiment's settings.

Hydra applies overrides to the root configuration, once. A stage's configuration is made later, out of the root, an
algorithm and the experiment's settings of the stage (`stages.<name>`), so what the command line said is kept in the
configuration and applied to the result again: first what it said for all stages, then what it said for this one.
"""

import contextlib
import difflib
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.configuration.reward_names import resolve_names

KEPT = "command_line"
# Below these any key may be given: classes state what they take, or names are free.
OPEN = ("args", "trainer", "model", "dataset", "judge", "labeller", "probes", "classifier", "labelling", "reviser")
OPEN += ("callbacks", "monitor", "profile", "budget", "settings", "stages")
OPEN += ("needs_of_view", "reward.needs", "reward.functions", "held_out.functions", "held_out.args")
# What a plan decides for every stage by itself.
PLACED = ("name", "kind", "needs", "seed", "output_dir", "output_root")
# Options of Hydra that are followed by a value.
VALUED = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p")
VALUED += ("--info", "-i", "--experimental-rerun")


def options_last(arguments: list[str]) -> list[str]:
    """Overrides, then Hydra's options with their values: its parser takes no override after an option."""
    overrides, options, words = [], [], list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        options.append(word)
        if (
            word in VALUED
            and words
            and not words[0].startswith("-")
            and ("=" not in words[0] or Path(words[0]).is_dir())
        ):
            options.append(words.pop(0))
    return overrides + options


def opened(argument: str) -> str:
    """A command-line argument as Hydra takes it: paths quoted, `++` before a key that YAML does not list but its class
    knows.
    """
    override, argument = _quoted(argument)
    if override is None:
        return argument  # Hydra tells what is wrong
    key = override.key_or_group
    within = any(key.startswith(f"{name}.") for name in OPEN)
    if override.package is not None or override.is_delete() or override.is_force_add():
        return argument
    whole = key in OPEN and (isinstance(override.value(), dict) or override.is_add())
    return f"++{argument.lstrip('+')}" if within or whole else argument


def _quoted(argument: str) -> tuple[Override | None, str]:
    """What Hydra reads, and the argument, with quotes around paths whose characters mean something else in its grammar.

    Paths in a list or mapping begin with / . or ~. None where it cannot be read.
    """
    key, equals, value = argument.partition("=")
    inside = re.sub(r"(?<=[:\[,])(\s*)([/.~][^,'\"\]}]*)", lambda found: found[1] + _in_quotes(found[2]), value)
    for text in (value, inside if value[:1] in tuple("[{") else _in_quotes(value)):
        with contextlib.suppress(HydraException):
            whole = f"{key}{equals}{text}"
            return OverridesParser.create().parse_override(whole), whole
    return None, argument


def _in_quotes(text: str) -> str:
    return "'" + text.rstrip().replace("'", "\\'") + "'"


def keep(config: DictConfig, overrides: Iterable[str], compose: Callable[[list[str]], DictConfig]) -> None:
    """Store the overrides in a composed configuration, for `last_word`; refuse keys that are not read anywhere.

    compose: overrides -> the same root configuration; called where a key was added to what YAML lists.
    Raises ConfigError.
    """
    parsed = _parsed(overrides)
    values = [override for override in parsed if not _chooses_a_group(override)]
    known = None
    for override in values:
        key = override.key_or_group
        if (override.is_add() or override.is_force_add()) and not _is_open(key):
            known = known or compose([override.input_line for override in parsed if _chooses_a_group(override)])
            if not _has(known, key):
                _refuse(f"{override.input_line.lstrip('+')}: no such key; {_hint(key, known)}")
    with open_dict(config):
        config[KEPT] = [override.input_line.replace("${", "\\${") for override in values]
    if config.get("kind", "train") != "train":
        for argument in overridden_stages(config).values():
            _refuse(f"{argument}: stages are of a pipeline, and this is one run; give its own keys.")


def last_word(
    config: DictConfig,
    root: DictConfig,
    names: Iterable[str] = (),
    section: str = "stages",
    without: Collection[str] = (),
) -> None:
    """Apply the stored overrides to the configuration of one stage, which was composed from several files.

    root: where `keep` noted it. names: under which the command line speaks of this stage alone, `<section>.<name>.*`;
    the last one wins. without: keys that mean another thing at the root.
    """
    parsed = _parsed(root.get(KEPT) or ())
    for override in parsed:
        head = override.key_or_group.partition(".")[0]
        if head in config and head not in (*PLACED, *without, section):
            _apply(config, override.key_or_group, override)
    for name in names:
        for key, override, value in _of_stage(parsed, section, name):
            if key.partition(".")[0] not in PLACED:
                _apply(config, key, override, value)
    resolve_names(config)


def overridden_stages(root: DictConfig, section: str = "stages") -> dict[str, str]:
    """Stages that have overrides of their own: name -> the override."""
    stages = {}
    for override in _parsed(root.get(KEPT) or ()):
        parts = override.key_or_group.split(".")
        if parts[0] == section:
            names = parts[1:2] or list(override.value() or {})
            stages |= {name: override.input_line.lstrip("+") for name in names}
    return stages


def training_config(root: DictConfig, algorithm: str | None = None) -> DictConfig:
    """The configuration of one training stage: the root, an experiment's settings of this stage, the command line.

    algorithm: the chosen one, where the stage has another name. Raises ConfigError for settings of another stage.
    """
    names = list(dict.fromkeys(filter(None, (algorithm, root.get("name")))))
    for name, argument in overridden_stages(root).items():
        if name not in names:
            _refuse(f"{argument}: this run is the stage {names[-1]}; give stages.{names[-1]}.*, or args.*.")
    config = root.copy()
    OmegaConf.set_struct(config, False)
    config.merge_with(*(root.stages.get(name) or {} for name in names))
    last_word(config, root, names)
    return config


def _parsed(overrides: Iterable[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _chooses_a_group(override: Override) -> bool:
    """Whether an override chooses a file of a group, as Hydra decides it; also in a folder of the user's."""
    key = override.key_or_group
    hydra = GlobalHydra.instance()
    group = "." not in key and (
        (CONF / key).is_dir() or (hydra.is_initialized() and hydra.config_loader().get_group_options(key))
    )
    chooses = override.package is not None or bool(group)
    return key.startswith("hydra") or (chooses and not isinstance(override.value(), dict))


def _refuse(sentence: str) -> NoReturn:
    from rlhf_trl_ext.configuration.checks import ConfigError  # pydantic, which --help does without

    raise ConfigError(sentence)


def _has(config: DictConfig, key: str) -> bool:
    """Whether a configuration has a key, with a value or without one."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return OmegaConf.select(config, key) is not None or (OmegaConf.is_dict(node) and name in list(node))


def _is_open(key: str) -> bool:
    return key in OPEN or any(key.startswith(f"{name}.") for name in OPEN)


def _of_stage(parsed: list[Override], section: str, name: str):
    """(key, override, value) of one stage's overrides; a dictionary is split into its keys."""
    for override in parsed:
        key, value = override.key_or_group, override.value()
        if key.startswith(f"{section}.{name}."):
            yield key.removeprefix(f"{section}.{name}."), override, value
        elif key in (section, f"{section}.{name}") and isinstance(value, dict):
            inside = value if key != section else value.get(name) or {}
            yield from ((inner, override, content) for inner, content in inside.items())


def _apply(config: DictConfig, key: str, override: Override, value=None) -> None:
    head, _, below = key.partition(".")
    if below and config.get(head) is None:  # switched off in this stage
        return
    if not override.is_delete():
        OmegaConf.update(config, key, override.value() if value is None else value, merge=True, force_add=True)
        return
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if OmegaConf.is_dict(node) and last in node:  # what Hydra deleted from the root may stand in an experiment
        del node[last]


def _hint(key: str, known: DictConfig) -> str:
    """Suggestions for an unknown key: close matches, else the keys of its section."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(known, parent) if parent else known
    if not OmegaConf.is_dict(node):
        parent, last, node = "", key.partition(".")[0], known
    names = [str(name) for name in node if name != "hydra"]
    close = difflib.get_close_matches(last, names, n=3)
    if close:
        return f"did you mean {' or '.join(f'{parent}.{name}'.strip('.') for name in close)}?"
    if parent:
        return f"{parent} has {', '.join(names)}."
    return "an argument of TRL's config class is written args.<name>=<value>; see --help for the others."
