"""Results of policies against a baseline, as a dictionary and as a table."""

import numpy as np
from rich.table import Table

from evaluation.quality.failures.diagnostics import diagnose
from evaluation.verdicts.comparison import Verdicts, against_baseline, chosen_pairs, judged, ranked, read_samples
from rlhf_trl_ext.configuration.checks import build
from rlhf_trl_ext.judging.judge import Judge


def compare(judge: Judge, baseline: list[dict], policies: dict[str, list[dict]]) -> dict[str, dict]:
    """For every policy: win rate against the baseline with its interval, mean rewards and KL, length, truncation."""
    samples = {**policies, "baseline": baseline}
    verdicts = judged(judge, samples, chosen_pairs("baseline", "baseline", list(policies)))
    rows = against_baseline(verdicts, samples, "baseline")
    return {name: {**row, **describe(policies[name])} for name, row in rows.items()}


def judge_of(config) -> Judge:
    """The judge of a configuration. Raises ValueError when it cannot work, for want of a key say."""
    judge = build(config.judge, "judge")
    judge.check()
    return judge


SPENT = ("sampled_tokens", "train_seconds", "peak_memory_mb")
PERPLEXITY = ("perplexity", "perplexity_ci")


def summarise(config, records: dict[str, dict], judge: Judge | None = None, verdicts: Verdicts | None = None) -> dict:
    """Results of a pipeline: every policy against the baseline, what it cost, and the records of all stages.

    records: stage name -> record, those of sampling under `samples-<policy>`. judge, verdicts: where they are there.
    """
    judge = judge or judge_of(config)
    samples = {name: read_samples(records[f"samples-{name}"]["file"]) for name in (config.baseline, *config.policies)}
    verdicts = verdicts or judged(judge, samples, chosen_pairs("baseline", config.baseline, list(config.policies)))
    policies = against_baseline(verdicts, samples, config.baseline)
    for name, row in policies.items():
        row.update(describe(samples[name]), **{key: records[name][key] for key in SPENT})
        row.update({key: records[f"samples-{name}"].get(key) for key in PERPLEXITY})
        row["outcomes"] = [verdict.outcome for verdict in verdicts[name, config.baseline]]
        row["flags"] = [
            found["name"] for found in diagnose(samples[name], samples[config.baseline]) if found["flagged"]
        ]
    return {
        "baseline": config.baseline,
        "judge": judge.name,
        "seed": config.seed,
        "baseline_result": {
            **describe(samples[config.baseline]),
            **{key: records[config.baseline][key] for key in SPENT},
            **{key: records[f"samples-{config.baseline}"].get(key) for key in PERPLEXITY},
        },
        "policies": policies,
        "ranking": ranked(verdicts, list(samples)) if policies else [],
        "notices": list(judge.notices),
        "stages": records,
    }


def describe(rows: list[dict]) -> dict:
    """Means over samples; `gold_reward_mean` is None where there is no gold reward. KL in nats per completion."""

    def mean(key):
        values = [row.get(key) for row in rows]
        return None if None in values else float(np.mean(values))

    return {
        "reward_mean": mean("reward"),
        "gold_reward_mean": mean("gold_reward"),
        "kl_mean": mean("kl"),
        "completion_tokens_mean": mean("completion_tokens"),
        "truncated": mean("truncated"),
        "prompts": len(rows),
    }


def table(results: dict) -> Table:
    """results.json as a table for the terminal: the baseline first, then the policies."""
    drawn = Table(title=f"against {results['baseline']}, judged by {results['judge']}", title_justify="left")
    columns = ("policy", "win rate", "95 % interval", "reward", "gold", "KL", "sampled tokens", "train s", "peak MB")
    for column in columns:
        drawn.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    rows = {results["baseline"]: results.get("baseline_result", {}), **results["policies"]}
    for name, row in rows.items():
        low, high = row.get("win_rate_ci", (None, None))
        drawn.add_row(
            name,
            _number(row.get("win_rate"), ".3f"),
            "" if low is None else f"{low:.3f} - {high:.3f}{'' if low <= 0.5 <= high else ' *'}",
            _number(row.get("reward_mean"), ".2f"),
            _number(row.get("gold_reward_mean"), ".3f"),
            _number(row.get("kl_mean"), ".2f"),
            _number(row.get("sampled_tokens"), ",d"),
            _number(row.get("train_seconds"), ".0f"),
            _number(row.get("peak_memory_mb"), ",.0f"),
        )
    drawn.caption = "* the interval excludes 0.5; intervals are over prompts, not over training seeds"
    return drawn


def _number(value, form: str) -> str:
    return "" if value is None else format(value, form)
