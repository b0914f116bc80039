"""Watch a run's metrics by stated rules; tell, keep the samples, and stop or roll back where that was asked for."""

import json
import logging
import math
from pathlib import Path

from accelerate.utils import broadcast_object_list
from omegaconf import OmegaConf

from rlhf_trl_ext.callbacks.attached import AttachedCallback
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.callbacks.rollback import last_before, roll_back
from rlhf_trl_ext.callbacks.stability_rules import KINDS, Divergence, Rule, Silence
from rlhf_trl_ext.configuration.folders import CONF
from rlhf_trl_ext.files import finite
from rlhf_trl_ext.quantities import Natural, Positive

logger = logging.getLogger(__name__)
ACTIONS = (None, "stop", "rollback")
# What the rules call a quantity, and what trainers log it as: the first that is there.
SIGNALS = {
    "kl": ("objective/kl", "kl"),
    "clip_fraction": ("policy/clipfrac_avg", "clip_ratio/region_mean"),
    "explained_variance": ("val/explained_variance", "vi/explained_variance"),
    "value_loss": ("loss/value_avg", "vi/loss"),
    "zero_variance_groups": ("frac_reward_zero_std",),
    "length": ("completions/mean_length",),
    "truncated": ("completions/clipped_ratio",),
}


def signal(logs: dict, name: str) -> float | None:
    """A quantity of one log; None where it was not logged."""
    for key in SIGNALS.get(name, (name,)):
        if logs.get(key) is not None and logs[key] != "None":
            return float(logs[key])
    return None


class StabilityRules:
    """The rules of a monitor, and what they remember.

    rules: name -> `kind` (one of `stability_rules.KINDS`) and its arguments. gold: name of the reward function that
    only watches, for rules of kind divergence; None: there is none. Raises ValueError for a rule that is not allowed.
    """

    def __init__(self, rules: dict[str, dict], gold: str | None = None):
        self.rules: dict[str, Rule] = {}
        for name, settings in rules.items():
            settings = dict(settings)
            kind = KINDS.get(settings.pop("kind", None))
            try:
                self.rules[name] = kind(**settings)
            except (TypeError, ValueError) as error:
                mistake = f"kind: allowed are {', '.join(KINDS)}." if kind is None else f"{settings}: {error}"
                raise ValueError(f"monitor.rules.{name}.{mistake}") from error
        self.gold = gold
        # Logs of one sampled batch so far, and the most of any; a trainer that samples logs `reward` with its first.
        self.online, self.logs_of_batch, self.most_logs = False, 0, 1

    def update(self, logs: dict) -> list[dict]:
        """Alerts of one training log: rule, metric, value, message."""
        alerts = []
        self.online = self.online or "reward" in logs
        fresh = "reward" in logs or not self.online
        self.logs_of_batch = 1 if fresh else self.logs_of_batch + 1
        self.most_logs = max(self.most_logs, self.logs_of_batch)
        gold = None if self.gold is None else signal(logs, f"rewards/{self.gold}/mean")
        for name, rule in self.rules.items():
            value = gold if rule.metric == "gold" else signal(logs, rule.metric)
            if value is not None and not math.isfinite(value) and not isinstance(rule, Silence):
                value = None
            if isinstance(rule, Divergence):
                rule.pair(value, gold)
            message = rule.update(value, fresh)
            if message is not None:
                alerts.append({"rule": name, "metric": rule.metric, "value": value, "message": message})
        return alerts


class StabilityMonitor(AttachedCallback):
    """Alerts go to the log, `alerts.jsonl`, wandb and trackio where they are used; samples to `alert_samples.jsonl`.

    rules: see `StabilityRules`; None: those of `conf/monitor/standard.yaml`. action: None (watch only), `stop`, or
    `rollback`: take weights and optimizer back to the last checkpoint before the trouble, and go on with
    `rollback_factor` times the learning rate; after `max_rollbacks`, or where there is no such checkpoint, stop.
    samples: kept for an alert, half of the highest and half of the lowest reward. A resumed run knows what it had seen.
    Raises ValueError for another action.
    """

    def __init__(
        self,
        rules: dict[str, dict] | None = None,
        action: str | None = None,
        samples: Natural = 8,
        rollback_factor: Positive = 0.5,
        max_rollbacks: Natural = 3,
    ):
        if action not in ACTIONS:
            raise ValueError(f"monitor.action={action}: allowed are null, stop, rollback.")
        rules = OmegaConf.to_container(OmegaConf.load(CONF / "monitor/standard.yaml").rules) if rules is None else rules
        self.settings, self.action, self.samples = rules, action, samples
        self.rollback_factor, self.rollbacks_left = rollback_factor, max_rollbacks
        self.rules = StabilityRules(rules)

    def attach(self, trainer) -> None:
        """Raises ValueError where weights cannot be taken back during training."""
        super().attach(trainer)
        if self.action == "rollback" and (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
            raise ValueError("monitor.action=rollback does not go with DeepSpeed or FSDP: use stop.")
        self.rules.gold = self._gold()

    def _gold(self) -> str | None:
        weights = getattr(self.trainer, "reward_weights", [])
        names = getattr(self.trainer, "reward_func_names", [])
        return next((name for name, weight in zip(names, weights, strict=True) if weight == 0), None)

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control)
        folder = Path(args.output_dir)
        self.rules = StabilityRules(self.settings, self._gold())
        for row in read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []:
            if row["step"] <= state.global_step and "loss" in row:
                self.rules.update(row)
        for path in (folder / "alerts.jsonl", folder / "alert_samples.jsonl"):
            if path.exists() and state.is_world_process_zero:
                kept = [row for row in read_metrics(path) if row["step"] <= state.global_step]
                path.write_text("".join(json.dumps(finite(row)) + "\n" for row in kept))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:  # an evaluation, or the end
            return
        alerts = self.rules.update(logs)
        if state.is_world_process_zero:
            for alert in alerts:
                self._report(args, {"step": state.global_step, **alert})
        (troubled,) = broadcast_object_list([bool(alerts)])
        if troubled and self.action is not None:
            self._act(args, state, control)

    def _report(self, args, alert: dict) -> None:
        title = f"{alert['rule']} at step {alert['step']}"
        logger.warning("%s: %s is %s", title, alert["metric"], alert["message"])
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "alerts.jsonl").open("a") as file:
            file.write(json.dumps(finite(alert)) + "\n")
        with (folder / "alert_samples.jsonl").open("a") as file:
            for row in self._offending():
                file.write(json.dumps(finite({"step": alert["step"], "rule": alert["rule"], **row})) + "\n")
        text = f"{args.run_name}: {alert['metric']} is {alert['message']}"
        if "wandb" in args.report_to:
            import wandb

            if wandb.run is not None:
                wandb.run.alert(title=title, text=text)
        if "trackio" in args.report_to:
            import trackio

            trackio.alert(title=title, text=text)

    def _offending(self) -> list[dict]:
        """Samples of the latest batch, highest reward first, and lowest last; [] for an offline trainer."""
        kept = getattr(self.trainer, "_logs", None)
        if not isinstance(kept, dict) or not kept.get("completion"):
            return []
        names = list(kept["rewards"])
        columns = [kept["prompt"], kept["completion"], *(kept["rewards"][name] for name in names)]
        rows = [
            {"prompt": prompt, "completion": completion, "rewards": dict(zip(names, rewards, strict=True))}
            for prompt, completion, *rewards in zip(*columns, strict=True)
        ]
        rows.sort(key=lambda row: -(row["rewards"][names[0]] or 0.0))
        half = self.samples // 2
        return rows if len(rows) <= self.samples else rows[:half] + rows[half - self.samples :]

    def _act(self, args, state, control) -> None:
        # The last step of which the log before the first broken one tells that its weights were well.
        logs = 1 + self.rules.most_logs * max(rule.patience for rule in self.rules.rules.values())
        checkpoint = last_before(args.output_dir, state.global_step - logs * max(1, int(state.logging_steps)))
        if self.action == "rollback" and self.rollbacks_left and checkpoint is not None:
            roll_back(self.trainer, checkpoint, self.rollback_factor)
            self.rollbacks_left -= 1
            self.rules = StabilityRules(self.settings, self.rules.gold)
            logger.warning(
                "step %d: weights and optimizer are those of %s, the learning rate %g times what it was",
                state.global_step,
                checkpoint,
                self.rollback_factor,
            )
        else:
            self.stopped = f"monitor.action={self.action} at step {state.global_step}"
            logger.warning("step %d: training is stopped (monitor.action=%s)", state.global_step, self.action)
            control.should_training_stop = True
