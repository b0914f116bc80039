"""Results of policies against a baseline, as a dictionary and as a table."""

from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from rich.table import Table

from evaluation.files import write_json
from evaluation.quality.failures.diagnostics import diagnose
from evaluation.verdicts.fairness import fairness, optimised
from evaluation.verdicts.pairwise import (
    against_baseline,
    chosen_pairs,
    judge_once,
    length_prior,
    pipeline_pairs,
    ranked,
    stored_entries,
    stored_evaluations,
)
from rlhf_trl_ext.configuration.checks import ConfigError, build
from rlhf_trl_ext.data.samples import SCORES, Samples, finite_number, read_samples
from rlhf_trl_ext.files import read_mark
from rlhf_trl_ext.judging.judge import Judge
from rlhf_trl_ext.stages import sweep
from rlhf_trl_ext.stages.identity import digest
from rlhf_trl_ext.stages.pipeline import SAMPLES, link


def judge_of(config) -> Judge:
    """The judge of a configuration. Raises ValueError when it cannot work, for want of a key say."""
    judge = build(config.judge, "judge")
    judge.check()
    if judge.recorded and config.get("dataset") and config.judge.get("field") is not None:
        _check_field(config)
    return judge


def _check_field(config) -> None:
    """Raises ConfigError where the samples of a pipeline will carry no score that its judge reads."""
    known = ["reward", *(f"rewards/{name}" for name in config.reward.get("names") or ())]
    known += ["held_out_reward"] * bool(config.get("held_out"))
    known += ["gold_reward"] * bool(getattr(build(config.dataset, "dataset"), "gold", None))
    if config.judge.field not in known:
        raise ConfigError(f"judge.field={config.judge.field}: samples of this pipeline have {', '.join(known)}.")


SPENT = ("sampled_tokens", "train_seconds", "peak_memory_mb")
PERPLEXITY = ("perplexity", "perplexity_ci")


def summarise(config, records: dict[str, dict], folder: Path, every_pair: bool = False) -> dict:
    """Results of a pipeline: every policy against the baseline, what it cost, and the records of all stages.

    records: stage name -> record, those of sampling under `samples-<policy>`. folder: of results.json; verdicts go to
    `verdicts/` in it, and those that are there already are not asked for again. every_pair: whether every two policies
    are judged, whatever the judge takes for it.
    """
    judge, baseline, names = judge_of(config), config.baseline, list(config.policies)
    samples = {name: read_samples(records[f"samples-{name}"]["file"]) for name in (baseline, *names)}
    pairs = chosen_pairs("all", baseline, names) if every_pair else pipeline_pairs(judge, baseline, names)
    trained, entries = optimised(config, records), stored_entries(Path(folder) / "results.json")
    settings = OmegaConf.to_container(config.judge, resolve=True)
    verdicts = judge_once(judge, settings, samples, pairs, Path(folder), entries)
    earlier = stored_evaluations(Path(folder) / "results.json", entries, samples)
    policies = against_baseline(verdicts, samples, baseline, length_prior(judge))
    for name, row in policies.items():
        row.update(describe(samples[name]), **{key: records[name][key] for key in SPENT})
        row.update({key: records[f"samples-{name}"].get(key) for key in PERPLEXITY})
        row["flags"] = [each["name"] for each in diagnose(samples[name], samples[baseline]) if each["flagged"]]
    return {
        "baseline": baseline,
        "judge": judge.name,
        "judge_reads_texts": not judge.recorded,
        "seed": config.seed,
        "baseline_result": {
            **describe(samples[baseline]),
            **{key: records[baseline][key] for key in SPENT},
            **{key: records[f"samples-{baseline}"].get(key) for key in PERPLEXITY},
        },
        "fair_judge": fairness(judge, settings, trained),
        "optimised": trained,
        "policies": policies,
        "ranking": ranked(verdicts, list(samples)) if policies else [],
        "notices": list(judge.notices),
        "verdicts": entries,
        **({"evaluations": earlier} if earlier else {}),
        "stages": records,
    }


def write_results(config, pipeline, folder: Path) -> dict:
    """Judge the finished stages of a pipeline; link them below `folder` and write results.json. Returns the results."""
    results = {**summarise(config, pipeline.records, folder), "data": digest(config.dataset)}
    link(folder, pipeline.folders)
    write_json(folder / "results.json", results)
    return results


def check_free(config, folder: Path) -> None:
    """Raises ConfigError where `folder` holds results on other data, or of policies that would be lost."""
    earlier = read_mark(Path(folder) / "results.json", ("data", "policies")) or {}
    if not earlier or config.overwrite:
        return
    if earlier["data"] != digest(config.dataset):
        raise ConfigError(
            f"output_dir={folder} holds results.json of other data (dataset, seed or a file's content): give another "
            "output_dir, or overwrite=true."
        )
    lost = [name for name in earlier["policies"] if name not in (config.baseline, *config.policies)]
    if lost:
        raise ConfigError(
            f"output_dir={folder} holds results of {', '.join(lost)} as well: name them in policies to keep them "
            "(finished stages are reused), or give another output_dir, or overwrite=true."
        )


def pipeline_folder(config, chosen: dict[str, str]) -> Path:
    """Where a pipeline's results go, in a sweep below it. chosen: group -> the file that was chosen of it."""
    experiment = chosen.get("experiment") or f"{chosen['dataset']}-{chosen['model']}"
    return sweep.folder(Path(config.output_dir or Path(config.output_root) / experiment))


def read_results(path: Path) -> dict:
    """A pipeline's results.json. Raises ValueError where the file is absent, damaged or something else."""
    results = read_mark(path, ("baseline", "policies", "stages", "judge"))
    if results is None or not _is_whole(results):
        raise ValueError(
            f"results={path} is no results.json of a pipeline, or it is damaged; write it with "
            "`python -m launchers.pipeline`, which reuses what is finished."
        )
    return results


def _is_whole(results: dict) -> bool:
    """Whether every policy has a row and a record of its samples, and all that is named has the form that is read."""
    rows, records = results["policies"], results["stages"]
    if not (isinstance(rows, dict) and isinstance(records, dict) and isinstance(results["baseline"], str)):
        return False
    sampled = [records.get(SAMPLES + name) for name in (results["baseline"], *rows)]
    further = [results.get(key) or {} for key in ("verdicts", "evaluations")]
    optional = [own for group in further if isinstance(group, dict) for own in group.values()]
    return all(isinstance(one, dict) for one in (*rows.values(), *records.values(), *sampled, *further, *optional))


def describe(rows: Samples) -> dict:
    """Means over samples, of those that have a number; None where none has, and `<name>_missing` where some have none.

    KL in nats per completion.
    """
    row: dict = {"prompts": len(rows)}
    for key in SCORES:
        values = [number for sample in rows if (number := finite_number(sample.get(key))) is not None]
        name = key if key == "truncated" else f"{key}_mean"
        row[name] = float(np.mean(values)) if values else None
        if 0 < len(values) < len(rows):
            row[f"{key}_missing"] = len(rows) - len(values)
    return row


def table(results: dict) -> Table:
    """results.json as a table for the terminal: the baseline first, then the policies."""
    grid = Table(title=f"against {results['baseline']}, judged by {results['judge']}", title_justify="left")
    columns = ("policy", "win rate", "95 % interval", "LC win rate", "95 % interval", "reward", "gold", "KL")
    for column in (*columns, "sampled tokens", "train s", "peak MB"):
        grid.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    rows = {results["baseline"]: results.get("baseline_result", {}), **results["policies"]}
    for name, row in rows.items():
        grid.add_row(
            name,
            _number(row.get("win_rate"), ".3f"),
            _interval(row.get("win_rate_ci")),
            _number(row.get("length_controlled_win_rate"), ".3f"),
            _interval(row.get("length_controlled_ci")),
            _number(row.get("reward_mean"), ".2f"),
            _number(row.get("gold_reward_mean"), ".3f"),
            _number(row.get("kl_mean"), ".2f"),
            _number(row.get("sampled_tokens"), ",d"),
            _number(row.get("train_seconds"), ".0f"),
            _number(row.get("peak_memory_mb"), ",.0f"),
        )
    grid.caption = (
        "LC: length-controlled; * the interval excludes 0.5; intervals are over prompts, not over training seeds"
    )
    if fair := results.get("fair_judge"):
        grid.caption += f"\nis this a fair judge? {fair}"
    grid.caption_justify = "left"
    return grid


def _interval(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return ""
    low, high = ends
    return f"{low:.3f} - {high:.3f}{'' if low <= 0.5 <= high else ' *'}"


def _number(value, form: str) -> str:
    return "" if value is None else format(value, form)
