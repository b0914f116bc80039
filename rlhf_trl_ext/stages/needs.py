"""What a stage needs of others: a map from stage to the key, or the keys, that its folder goes to."""

from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages import kinds
from rlhf_trl_ext.stages.identity import declared

FORM = "give the key that each folder goes to, such as {dpo: model.model_name_or_path, reward: reward.path}"


def claims(where: str, needs) -> dict[str, str]:
    """Key -> stage whose folder goes there, from `{stage: key}` or `{stage: [key, ...]}`; null: from nothing.

    where: the key of the map, for messages. Raises ConfigError for another form, and for two folders at one key.
    """
    needs = OmegaConf.to_container(needs, resolve=True) if OmegaConf.is_config(needs) else needs
    if not isinstance(needs, dict | None):
        text = f"[{', '.join(map(str, needs))}]" if isinstance(needs, list) else needs
        raise ConfigError(f"{where}={text}: {FORM}.")
    claimed: dict[str, str] = {}
    for stage, keys in (needs or {}).items():
        for key in [keys] if isinstance(keys, str | None) else keys:
            if not isinstance(key, str) or not key:
                raise ConfigError(f"{where}.{stage}={key}: {FORM}.")
            if claimed.setdefault(key, stage) != stage:
                raise ConfigError(f"{where}: {claimed[key]} and {stage} both go to {key}; name one of them.")
    return claimed


def reward_needs(reward: DictConfig) -> dict[str, str]:
    """Key -> stage that trains the reward: `reward.stage`, whose folder goes to reward.path, or `reward.needs`."""
    stage, needs = reward.get("stage"), reward.get("needs")
    if stage is not None and not isinstance(stage, str):
        raise ConfigError(
            f"reward.stage={stage}: name one stage; of several rewards, give reward.stage=null and "
            "reward.needs={<stage>: reward.functions.0, ...}."
        )
    return {**({"reward.path": stage} if stage else {}), **claims("reward.needs", needs)}


def by_stage(claimed: dict[str, str]) -> dict[str, list[str]]:
    """Stage -> keys that its folder goes to, from key -> stage."""
    return {
        stage: [key for key, other in claimed.items() if other == stage] for stage in dict.fromkeys(claimed.values())
    }


def placed(config: DictConfig, folders: dict[str, object]) -> DictConfig:
    """A stage's configuration with the folders of what it needs in their places."""
    config = config.copy()
    for stage, keys in config.needs.items():
        for key in keys:
            OmegaConf.update(config, key, str(folders[stage]), force_add=True)
    return config


def read_keys(config: DictConfig, keys: list[str]) -> set[str]:
    """Those of the keys whose value reaches what decides the stage's result, directly or through `${...}`."""
    probe = config.copy()
    marks = {key: f"<{number}>" for number, key in enumerate(keys)}
    for key, mark in marks.items():
        OmegaConf.update(probe, key, mark, force_add=True)
    settings = declared(kinds.kind_of(config), OmegaConf.to_container(probe, resolve=True))
    texts = set(_texts(settings))
    return {key for key, mark in marks.items() if mark in texts}


def _texts(node):
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _texts(child)
    elif isinstance(node, str):
        yield node
