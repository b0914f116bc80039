"""Failures planted in the middle of a run, as callbacks that change a trainer from a step on."""

import torch
from transformers import TrainerCallback


class Failure(TrainerCallback):
    """From optimizer step `onset` on, `plant` has changed the trainer; the run ends at step `end`."""

    def __init__(self, onset: int, end: int):
        self.onset, self.end, self.stopped = onset, end, None

    def attach(self, trainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == self.onset:  # resumed at the checkpoint that the healthy run left
            self.plant(**kwargs)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.end:
            self.stopped, control.should_training_stop = "the planted failure was seen", True

    def plant(self, **kwargs) -> None:
        raise NotImplementedError


class LearningRate(Failure):
    """A learning rate a hundred times too high: of the policy, or of PPO's critic alone."""

    def __init__(self, onset: int, end: int, factor: float = 100.0, critic: bool = False):
        super().__init__(onset, end)
        self.factor, self.critic = factor, critic

    def plant(self, optimizer, lr_scheduler, **kwargs):
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
        critic = {id(parameter) for parameter in self.trainer.critic.parameters()} if self.critic else set()
        for place, group in enumerate(optimizer.param_groups):
            if self.critic and not any(id(parameter) in critic for parameter in group["params"]):
                continue
            group["lr"] *= self.factor
            scheduler.base_lrs[place] *= self.factor


class WithoutKL(Failure):
    """The penalty for leaving the reference is off."""

    def plant(self, **kwargs):
        self.trainer.beta = 0.0


class EntropyCollapse(Failure):
    """The loss rewards certainty: an entropy bonus of the wrong sign."""

    def __init__(self, onset: int, end: int, coefficient: float = -5.0):
        super().__init__(onset, end)
        self.coefficient = coefficient

    def plant(self, **kwargs):
        self.trainer._entropy_bonus_enabled, self.trainer.entropy_coef = True, self.coefficient


class Endless(Failure):
    """Completions cannot end: the end token is never sampled."""

    def plant(self, **kwargs):
        self.trainer.generation_config.suppress_tokens = list(self.trainer.eos_token_ids)


class Rewards(Failure):
    """What is trained on is not the reward any more.

    kind: length: pays 1 for a token, less its mean, so that the mean reward is at first what it was. exclamation: pays
    3 for every exclamation mark. constant: the same for all. flipped: the sign is wrong. broken: one in ten is a
    hundred times as large.
    """

    def __init__(self, onset: int, end: int, kind: str):
        super().__init__(onset, end)
        self.kind, self.usual = kind, None

    def plant(self, **kwargs):
        self.rate, self.trainer.reward_funcs[0] = self.trainer.reward_funcs[0], self.changed

    def changed(self, completions, completion_ids, **kwargs) -> list[float]:
        rewards = torch.tensor(self.rate(completions=completions, completion_ids=completion_ids, **kwargs))
        lengths = torch.tensor([float(len(ids)) for ids in completion_ids])
        self.usual = lengths.mean() if self.usual is None else self.usual
        marks = torch.tensor([float(chat[0]["content"].count("!")) for chat in completions])
        broken = torch.arange(len(rewards)) % 10 == 0
        return {
            "length": rewards + (lengths - self.usual),
            "exclamation": rewards + 3 * marks,
            "constant": torch.zeros_like(rewards),
            "flipped": -rewards,
            "broken": torch.where(broken, 100 * rewards, rewards),
        }[self.kind].tolist()
