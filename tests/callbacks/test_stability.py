import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from stages.test_training import ONLINE, folder_of, run, weights
from transformers import TrainerCallback

from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.callbacks.stability import StabilityMonitor, StabilityRules, signal
from rlhf_trl_ext.callbacks.stability_rules import Collapse, Divergence, Drift, Saturation, Silence, Spike

STEADY = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9]  # MAD .1


def spoken(rule, values):
    """Places of the values at which a rule spoke."""
    return [place for place, value in enumerate(values) if rule.update(value) is not None]


def test_a_jump_is_a_spike_and_a_slope_is_none():
    assert spoken(Spike("x", scores=6), [*STEADY, 3.0]) == [12]
    assert spoken(Spike("x", scores=6, side="below"), [*STEADY, 3.0]) == []
    assert spoken(Spike("x", scores=6, side="both"), [*STEADY, -1.0]) == [12]
    assert spoken(Spike("x", scores=6), [0.1 * step for step in range(40)]) == []
    # The past is not moved by one outlier: a second one is as far.
    assert spoken(Spike("x", scores=6), [*STEADY, 3.0, 1.0, 3.0]) == [12, 14]


def test_patience_counts_values_that_were_logged_and_speaks_once():
    rule = Spike("x", scores=6, patience=2)
    assert spoken(rule, [*STEADY, 3.0, None, 3.0, 3.0, 1.0, 3.0, 1.0]) == [14]


def test_the_steps_of_one_batch_count_once():
    rules = StabilityRules({"high": {"kind": "saturation", "metric": "kl", "above": 1, "warmup": 0, "patience": 2}})

    def told(*logs):
        return [bool(rules.update(log)) for log in logs]

    bad, sampled = {"kl": 9.0}, {"kl": 9.0, "reward": 0.0}
    assert told(sampled, bad, bad, {"kl": 0.0, "reward": 0.0}) == [False] * 4  # an outlier of one batch
    assert told({"kl": 0.0, "reward": 0.0}, bad, bad, sampled, bad, bad) == [False, False, False, True, False, False]
    assert rules.most_logs == 3
    offline = StabilityRules({"high": {"kind": "saturation", "metric": "kl", "above": 1, "warmup": 0, "patience": 2}})
    assert [bool(offline.update(bad)) for _ in range(3)] == [False, True, False]


def test_nothing_is_said_before_the_warmup():
    assert spoken(Saturation("x", above=1.0, warmup=3), [5.0, 5.0, 5.0, 5.0]) == [3]


def test_a_floor_keeps_a_constant_metric_quiet():
    assert spoken(Spike("x", floor=0.02), [0.0] * 12 + [0.1]) == []
    assert spoken(Spike("x", floor=0.02), [0.0] * 12 + [0.13]) == [12]


def test_a_slow_departure_is_a_drift_that_no_single_value_shows():
    values = [*STEADY, *STEADY, *[1.0 - 0.06 * step for step in range(1, 16)]]
    assert spoken(Spike("x", side="below"), values) == []
    (first, *_) = spoken(Drift("x", side="below"), values)
    assert 24 < first <= 38
    assert spoken(Drift("x", side="above"), values) == []
    assert spoken(Drift("x", side="below"), [*STEADY, -9.0, *STEADY]) == []  # one outlier


def test_collapse_is_a_share_of_the_usual():
    assert spoken(Collapse("x", share=0.5), [*STEADY, 0.6, 0.4]) == [13]


def test_silence_is_a_gap_longer_than_any_before_or_no_number():
    every_fourth = [1.0, None, None, None] * 12
    assert spoken(Silence("x"), every_fourth) == []
    # Gaps were of 3: more than twice that, and one, is silence.
    assert spoken(Silence("x"), [*every_fourth, *[None] * 10]) == [52]
    assert spoken(Silence("x", warmup=0), [1.0, math.nan]) == [1]
    assert spoken(Silence("x", stuck=True), [*STEADY, 0.5, 0.5]) == [13]


def test_a_proxy_that_rises_with_gold_is_none_and_one_that_leaves_it_is_divergence():
    # Gold goes up and down; the proxy is twice gold, give or take .02, and from the 20th pair on .5 higher.
    gold = [0.5 + 0.1 * math.sin(step) for step in range(40)]
    noise = [0.02 * math.cos(7 * step) for step in range(40)]
    for extra, expected in ((0.0, False), (0.5, True)):
        rule, places = Divergence("reward"), []
        for step in range(40):
            proxy = 2 * gold[step] + noise[step] + extra * (step >= 20)
            rule.pair(proxy, gold[step])
            places += [step] if rule.update(proxy) is not None else []
        assert bool(places) == expected and all(20 <= step <= 23 for step in places[:1])


def test_signals_are_found_under_their_names_and_words_that_are_no_number():
    assert signal({"kl": 2.0, "objective/kl": 1.0}, "kl") == 1.0
    assert signal({"frac_reward_zero_std": 0.5}, "zero_variance_groups") == 0.5
    assert signal({"mine": "None"}, "mine") is None and math.isnan(signal({"mine": "nan"}, "mine"))


def test_refusals():
    with pytest.raises(ValueError, match=r"monitor\.rules\.a\.kind: allowed are spike, drift"):
        StabilityRules({"a": {"kind": "sike", "metric": "loss"}})
    with pytest.raises(ValueError, match=r"monitor\.rules\.a.*unexpected keyword argument 'abov'"):
        StabilityRules({"a": {"kind": "saturation", "metric": "loss", "abov": 1}})
    with pytest.raises(ValueError, match=r"monitor\.action=halt: allowed are null, stop, rollback"):
        StabilityMonitor({}, action="halt")


@pytest.mark.parametrize("choice", sorted(path.stem for path in (ROOT / "conf" / "monitor").glob("*.yaml")))
def test_every_choice_has_rules_that_are_accepted(choice, composed):
    rules = OmegaConf.to_container(composed("train", f"monitor={choice}").monitor.rules)
    assert len(StabilityRules(rules).rules) == len(rules) > 10


MONITOR = "rlhf_trl_ext.callbacks.stability.StabilityMonitor"


def watched(rules):
    """An override that watches by these rules alone."""
    return f"++monitor={{_target_: {MONITOR}, action: null, rules: {{{rules}}}}}"


ALWAYS = [watched("long: {kind: saturation, metric: length, above: 0, warmup: 1}")]


def test_alerts_and_their_samples_are_written_and_a_run_stops_if_asked(composed, few, tmp_path):
    record = run(composed, few, tmp_path, "grpo", *ONLINE, *ALWAYS, "++monitor.action=stop", "++monitor.samples=4")
    folder = folder_of(tmp_path, "grpo")
    (alert,) = read_metrics(folder / "alerts.jsonl")
    assert (alert["step"], alert["rule"], alert["metric"]) == (2, "long", "length") and alert["value"] > 0
    samples = [json.loads(line) for line in (folder / "alert_samples.jsonl").read_text().splitlines()]
    rewards = [row["rewards"]["distinct_characters"] for row in samples]
    assert len(samples) == 4 and rewards == sorted(rewards, reverse=True) and rewards[0] > rewards[-1]
    assert record["steps"] == 2


class Shake(TrainerCallback):
    """Ruins the policy when a step is done."""

    def __init__(self, step: int):
        self.step = step

    def attach(self, trainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                next(self.trainer.model.parameters()).fill_(10.0)


def test_a_run_goes_back_to_the_checkpoint_before_the_trouble(composed, few, tmp_path):
    rules = watched("ruined: {kind: saturation, metric: loss, above: 5.8, warmup: 1}")  # 5.7, 5.3, and ruined 6.3
    more = ["++args.save_steps=1", "++args.save_total_limit=9", "++args.max_steps=5", rules]
    shake = ["++callbacks={shake: {_target_: callbacks.test_stability.Shake, step: 3}}", "++monitor.action=rollback"]
    run(composed, few, tmp_path, "sft", *more, *shake)
    folder = folder_of(tmp_path, "sft")
    (alert,) = read_metrics(folder / "alerts.jsonl")
    assert alert["step"] == 4  # the first loss with the ruined weights
    ruined, after = weights(folder / "checkpoint-3"), weights(folder / "checkpoint-4")
    assert max(float(tensor.abs().max()) for tensor in ruined.values()) == 10.0
    # Step 4 showed what step 3 had left: back at the checkpoint before it, which is then saved as that of step 4.
    before = weights(folder / "checkpoint-2")
    assert all(torch.equal(after[name], before[name]) for name in before)
    rates = [row["learning_rate"] for row in read_metrics(folder / "metrics.jsonl") if "learning_rate" in row]
    assert rates[4] == pytest.approx(rates[0] * (1 / 5) * 0.5)  # linear to 0 over five steps, halved


@pytest.mark.slow
def test_a_resumed_run_remembers_and_tells_nothing_twice(composed, few, tmp_path, cut_off):
    more = [*ALWAYS, "++args.save_steps=2"]
    with cut_off(3):
        run(composed, few, tmp_path, "grpo", *ONLINE, *more)
    run(composed, few, tmp_path, "grpo", *ONLINE, *more)
    assert [row["step"] for row in read_metrics(folder_of(tmp_path, "grpo") / "alerts.jsonl")] == [2]


def test_alerts_reach_trackio(tmp_path, monkeypatch):
    told = []
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(alert=lambda title, text: told.append((title, text))))
    args = SimpleNamespace(output_dir=str(tmp_path), report_to=["trackio"], run_name="grpo-1")
    alert = {"step": 7, "rule": "kl_spike", "metric": "kl", "value": 9.0, "message": "9 after 1"}
    StabilityMonitor({})._report(args, alert)
    assert told == [("kl_spike at step 7", "grpo-1: kl is 9 after 1")]
    assert read_metrics(tmp_path / "alerts.jsonl") == [alert] and not read_metrics(tmp_path / "alert_samples.jsonl")


def test_watching_does_not_make_another_run(composed):
    from rlhf_trl_ext.stages.identity import fingerprint

    plain, watched, acting = (
        composed("train", "algorithm=sft", *more) for more in ([], ALWAYS, [*ALWAYS, "++monitor.action=stop"])
    )
    assert fingerprint(plain) == fingerprint(watched) != fingerprint(acting)


@pytest.mark.slow
def test_alerts_reach_wandb(composed, few, tmp_path, monkeypatch, offline_wandb):
    told = []
    alert = lambda self, title, text, **kwargs: told.append((title, text))  # noqa: E731
    monkeypatch.setattr(offline_wandb.sdk.wandb_run.Run, "alert", alert)
    run(composed, few, tmp_path, "grpo", *ONLINE, *ALWAYS, "++args.report_to=[wandb]")
    ((title, text),) = told
    assert title == "long at step 2" and "length is" in text
