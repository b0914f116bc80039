"""One pipeline's results on disk: records of its stages, samples and verdicts, read and never judged again."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from evaluation.comparison.learning_curves import Curve, curve
from evaluation.verdicts import store
from evaluation.verdicts.pairwise import outcomes
from evaluation.verdicts.results import read_results
from evaluation.verdicts.store import Verdicts
from rlhf_trl_ext.data.samples import Samples, finite_number, read_samples
from rlhf_trl_ext.files import read_mark

SAMPLES = "samples-"
CONTROLLED = "length_controlled_win_rate"
CELL = ("win_rate", "win_rate_ci", CONTROLLED, "length_controlled_ci", "reward_mean", "gold_reward_mean", "kl_mean")
CELL += ("completion_tokens_mean", "sampled_tokens", "train_seconds", "peak_memory_mb", "flags")


@dataclass
class Run:
    """One data set and seed: its folder, the records of its stages, why rows failed, samples, verdicts and results.

    verdicts: of the pipeline's own judge. further: judge -> verdicts of those that judged it later. problems: sentences
    on what could not be read.
    """

    dataset: str
    seed: int
    folder: Path
    records: dict[str, dict]
    failed: dict[str, str]
    samples: dict[str, Samples] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=dict)
    further: dict[str, Verdicts] = field(default_factory=dict)
    results: dict | None = None
    problems: list[str] = field(default_factory=list)

    def cell(self, row: str) -> dict:
        """Everything about one algorithm here."""
        cell = {"dataset": self.dataset, "seed": self.seed, "algorithm": row, "folder": self.folder.name}
        if row not in (self.results or {"policies": ()})["policies"]:
            return {**cell, "status": "failed", "error": self.failed.get(row, "its baseline failed")}
        policy, profile = self.results["policies"][row], self.folder / row / "profile.json"
        phases = (read_mark(profile) or {}).get("phases")
        if not isinstance(phases, dict) or any(finite_number(share) is None for share in phases.values()):
            phases = None  # absent, or damaged
        kept = {key: policy.get(key) for key in CELL}
        return {**cell, "status": "finished", "steps": self.records.get(row, {}).get("steps"), **kept, "phases": phases}

    def per_prompt(self, row: str, metric: str) -> np.ndarray:
        """One number for every prompt, NaN where there is none; the length-controlled win rate is one number."""
        if metric == CONTROLLED:
            return np.array([self.results["policies"][row].get(metric, np.nan)], float)
        if metric == "win_rate":
            own = self.verdicts.get((row, self.results["baseline"]))
            return np.full(len(self.samples[row]), np.nan) if own is None else outcomes(own)
        return np.array([np.nan if sample.get(metric) is None else sample[metric] for sample in self.samples[row]])

    def between(self, a: str, b: str) -> np.ndarray | None:
        """Outcomes of a against b, `(N,)`, NaN where there is none; None where the two were not judged."""
        if (a, b) in self.verdicts:
            return outcomes(self.verdicts[a, b])
        return 1 - outcomes(self.verdicts[b, a]) if (b, a) in self.verdicts else None

    def curve(self, row: str) -> Curve | None:
        """Training reward against sampled tokens; None for what samples none."""
        return curve(self.folder / row) if row in self.records else None


def read_run(folder: Path) -> Run:
    """A pipeline's folder. Raises ValueError for a results.json or samples that cannot be read."""
    results = read_results(folder / "results.json")
    run = Run(_dataset(folder, results), results.get("seed", 0), folder, results["stages"], {}, results=results)
    for name in (results["baseline"], *results["policies"]):
        run.samples[name] = read_samples(folder / f"{SAMPLES}{name}" / "samples.jsonl")
    for judge, entry in (results.get("verdicts") or {}).items():
        try:
            verdicts = store.load(folder, entry, run.samples)
        except (ValueError, KeyError, TypeError) as error:
            run.problems.append(f"{folder.name}: the verdicts of {judge} cannot be read: {error}")
            continue
        if not verdicts:
            run.problems.append(
                f"{folder.name}: {judge} judged other samples than those that are there now; judge again with "
                f"`python -m launchers.evaluate results={folder / 'results.json'}`."
            )
        if judge == results["judge"]:
            run.verdicts = verdicts
        elif verdicts:
            run.further[judge] = verdicts
    return run


def _dataset(folder: Path, results: dict) -> str:
    """The data set's name, from the configuration of the sampling stage."""
    path = folder / f"{SAMPLES}{results['baseline']}" / "config.yaml"
    target = "data"
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError, yaml.YAMLError):
        dataset = yaml.safe_load(path.read_text())["dataset"]
        target = str((dataset.get("convert") or dataset).get("_target_", target))
    return target.split(".")[-2] if "." in target else target
