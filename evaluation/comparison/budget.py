"""What every cell of a benchmark may use, as settings of its training stage and in words."""

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from rlhf_trl_ext.configuration.checks import ConfigError

# The number of steps is not known beforehand, so no schedule can end with them.
ENDLESS = {"max_steps": 1_000_000, "lr_scheduler_type": "constant"}


@dataclass(frozen=True)
class Budget:
    """One of sampled completion tokens, optimizer steps and seconds of training; none: each algorithm's own steps."""

    sampled_tokens: int | None = None
    gradient_steps: int | None = None
    seconds: float | None = None

    def __post_init__(self):
        limits = {name: value for name, value in vars(self).items() if value is not None}
        if len(limits) > 1 or any(value <= 0 for value in limits.values()):
            setting = ", ".join(f"budget.{name}={value}" for name, value in limits.items())
            raise ConfigError(f"{setting}: give one of sampled_tokens, gradient_steps and seconds, above 0, or none.")

    def applied(self, stage: DictConfig) -> DictConfig:
        """The stage's configuration within this budget. What learns from a file keeps its steps under tokens."""
        if self.gradient_steps is not None:
            return OmegaConf.merge(stage, {"args": {"max_steps": self.gradient_steps}})
        if self.seconds is not None:
            return self._stopped(stage, {"seconds": self.seconds})
        if self.sampled_tokens is not None and stage.view == "prompts":
            return self._stopped(stage, {"sampled_tokens": self.sampled_tokens})
        return stage

    def _stopped(self, stage: DictConfig, limit: dict) -> DictConfig:
        constant = stage.args.get("lr_scheduler_type") == "constant_with_warmup"
        steps = {key: value for key, value in ENDLESS.items() if not (constant and key == "lr_scheduler_type")}
        return OmegaConf.merge(stage, {"args": steps, "budget": limit})

    def in_words(self, online: dict[str, bool]) -> str:
        """What every cell got. online: algorithm -> whether it learns from its own samples."""
        constant = "at a constant learning rate, as the number of steps is not known beforehand"
        if self.gradient_steps is not None:
            return f"Every cell took {self.gradient_steps:,} optimizer steps."
        if self.seconds is not None:
            return f"Every cell trained for {self.seconds:,.0f} seconds, {constant}."
        if self.sampled_tokens is None:
            return "No common budget: every algorithm took the steps of its own configuration."
        files = [name for name, samples in online.items() if not samples]
        text = f"Every algorithm that learns from its own samples sampled {self.sampled_tokens:,} completion tokens, "
        text += f"and its last batch beyond, {constant}."
        return text + (
            f" {', '.join(files)} samples none and took the steps of its own configuration." if files else ""
        )
