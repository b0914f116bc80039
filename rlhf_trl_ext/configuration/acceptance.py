"""Checks and preparation of a composed configuration, before a launcher's own work."""

import hydra


def refuse_foreign_hydra(arguments: list[str]) -> None:
    """Raises ConfigError where a folder of the command line sets Hydra up."""
    from rlhf_trl_ext.configuration.foreign import hydra_settings

    if settings := hydra_settings(arguments):
        from rlhf_trl_ext.configuration.checks import ConfigError, listed

        raise ConfigError(listed(settings))


def accept(config, launcher: str) -> None:
    """Review a launcher's configuration, and store the command line's overrides in it.

    One that lies in a stage's own folder writes to that folder, and is run by the launcher of its kind.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from rlhf_trl_ext.configuration.foreign import folder_of, own_folder
    from rlhf_trl_ext.configuration.overrides import keep
    from rlhf_trl_ext.configuration.review import review
    from rlhf_trl_ext.configuration.reward_names import resolve_names
    from rlhf_trl_ext.stages.kinds import refuse_kind

    hydra_config = HydraConfig.get()
    overrides = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # as they were typed
    if folder := folder_of(hydra_config.job.config_name, hydra_config.runtime.config_sources):
        own_folder(config, folder, overrides)
    refuse_kind(config, launcher)
    resolve_names(config)
    review(config, launcher, overrides)
    keep(config, overrides, lambda groups: hydra.compose(hydra_config.job.config_name, overrides=groups))
