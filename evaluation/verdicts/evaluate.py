"""One evaluation from its configuration: samples, judges, results as JSON and Markdown."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from evaluation.files import write_json
from evaluation.quality.failures.diagnostics import diagnose, false_positive_rate
from evaluation.quality.metrics import reward_quality, text_metrics
from evaluation.report.markdown import markdown
from evaluation.verdicts import store
from evaluation.verdicts.agreement import agreement, gold_verdicts, read_labels
from evaluation.verdicts.correction import correction
from evaluation.verdicts.fairness import fairness
from evaluation.verdicts.length_control import read_anchor
from evaluation.verdicts.pairwise import (
    AA_CONTROL,
    aa_control,
    against_baseline,
    chosen_pairs,
    judge_once,
    length_prior,
    ranked,
    stored_entries,
    with_anchor,
)
from evaluation.verdicts.results import PERPLEXITY, describe, read_results
from evaluation.verdicts.samples import check_pairs, prompt_ids
from evaluation.verdicts.store import Verdicts
from rlhf_trl_ext.configuration.checks import build
from rlhf_trl_ext.data.samples import read_samples
from rlhf_trl_ext.files import write
from rlhf_trl_ext.judging.injection import injection_flip_rate
from rlhf_trl_ext.judging.judge import Judge
from rlhf_trl_ext.judging.verdicts import check_readable, preview

BASELINE = "baseline"


class Evaluation:
    """Judges, samples and where the results go. Nothing is asked before `run`.

    compose: name -> configuration of `conf/judge/<name>.yaml`, for further_judges.
    Raises ValueError for samples of different prompts, fewer than 2 pairs, unknown judges, missing keys and files.
    """

    def __init__(self, config: DictConfig, compose: Callable[[str], DictConfig]):
        self.config = config
        self.pipeline = read_results(Path(config.results)) if config.results else None
        self.baseline = self.pipeline["baseline"] if self.pipeline else BASELINE
        self.samples = {name: read_samples(path, self._key(name)) for name, path in self._paths().items()}
        self.policies = [name for name in self.samples if name != self.baseline]
        if AA_CONTROL in self.samples:
            raise ValueError(f"policies.{AA_CONTROL}: this is the A/A control's name; give the policy another one.")
        if not self.policies:
            raise ValueError("policies={}: nothing to compare; give policies={name: samples.jsonl}.")
        self.pairs = chosen_pairs(config.pairs, self.baseline, self.policies)
        for a, b in self.pairs:
            check_pairs(self.samples[a], self.samples[b])
        count = len(self.samples[self.baseline])
        self.labels = read_labels(config.labels, self.pairs[: len(self.policies)], count) if config.labels else None
        self.anchor = read_anchor(config.anchor, count) if config.anchor else None
        self.all_samples, self.judged_pairs = dict(self.samples), list(self.pairs)
        if config.aa_control:
            self.all_samples[AA_CONTROL] = read_samples(config.aa_control, "aa_control")
            self.judged_pairs.append((AA_CONTROL, self.baseline))
            check_pairs(self.all_samples[AA_CONTROL], self.samples[self.baseline])
        self.probes = build(config.probes, "probes") if config.get("probes") else None
        if self.probes:
            self.probes.choose(list(self.samples), Path(config.results).parent if config.results else None)
        self.classifier = build(config.classifier, "classifier") if config.get("classifier") else None
        self.classified: dict[str, dict] = {}
        settings = {"judge": config.judge} | {f"judge/{name}": compose(name) for name in config.further_judges}
        self.settings = [OmegaConf.to_container(own, resolve=True) for own in settings.values()]
        self.judges: list[Judge] = [build(own, name) for name, own in settings.items()]
        if len({judge.name for judge in self.judges}) < len(self.judges):
            raise ValueError(f"further_judges={list(config.further_judges)}: every judge is named once.")

    def _paths(self) -> dict[str, str]:
        if self.pipeline is None:
            return {BASELINE: self.config.baseline, **self.config.policies}
        names = [self.baseline, *self.pipeline["policies"]]
        return {name: self.pipeline["stages"][f"samples-{name}"]["file"] for name in names}

    def _key(self, name: str) -> str:
        """The setting that names a policy's samples."""
        if self.pipeline:
            return f"results={self.config.results}: stages.samples-{name}.file"
        return name if name == BASELINE else f"policies.{name}"

    def preview(self) -> dict[str, dict]:
        """What every judge would ask, and what it would cost; nothing is sent."""
        games = [(self.all_samples[a], self.all_samples[b]) for a, b in self.judged_pairs]
        return {judge.name: preview(judge, games) for judge in self.judges}

    def run(self) -> dict:
        """Judge what is not judged yet; write verdicts, evaluation.json, its report and a pipeline's results.json."""
        for judge in self.judges:
            judge.check()
        if self.classifier:
            self.classifier.check()
            self.classified = self.classifier.metrics(self.samples)
        probed = self.probes.diagnose(self.baseline) if self.probes else {}
        verdicts, entries = self._verdicts()
        first = self.judges[0].name
        controls = {name: own.pop((AA_CONTROL, self.baseline), None) for name, own in verdicts.items()}
        policies = self._policies(verdicts[first])
        control = controls[first]
        if control:
            control = aa_control(control, self.all_samples[AA_CONTROL], self.samples[self.baseline])
        results = {
            "baseline": self.baseline,
            "judge": first,
            "judge_reads_texts": not self.judges[0].recorded,
            "fair_judge": fairness(self.judges[0], self.settings[0], (self.pipeline or {}).get("optimised")),
            "baseline_result": {**describe(self.samples[self.baseline]), "metrics": self._metrics(self.baseline)},
            "policies": policies,
            "judges": {
                judge.name: against_baseline(verdicts[judge.name], self.samples, self.baseline, length_prior(judge))
                for judge in self.judges[1:]
            },
            "ranking": ranked(verdicts[first], list(self.samples)),
            "agreement": agreement(self._comparable(verdicts, entries), self.labels),
            "aa_control": control,
            "injection_flip_rate": self._injections(verdicts[first]),
            "notices": self._notices(policies),
            "verdicts": entries,
            **self._failures(probed),
        }
        self._write(results)
        for judge in self.judges:
            all_verdicts = [verdict for own in verdicts[judge.name].values() for verdict in own]
            check_readable(judge, sum(v.outcome is None for v in all_verdicts), len(all_verdicts), str(self.output))
        return results

    def _verdicts(self) -> tuple[dict[str, Verdicts], dict[str, dict]]:
        """Every judge's verdicts, stored ones where there are any; and the entries of all that are stored."""
        index = Path(self.config.results or self.output)
        entries = stored_entries(index)
        judged = [
            judge_once(judge, own, self.all_samples, self.judged_pairs, index.parent, entries)
            for judge, own in zip(self.judges, self.settings, strict=True)
        ]
        # named only now: a judge's name may follow what it found in the samples
        return {judge.name: own for judge, own in zip(self.judges, judged, strict=True)}, entries

    def _comparable(self, verdicts: dict[str, Verdicts], entries: dict[str, dict]) -> dict[str, Verdicts]:
        """What judges agree on: their verdicts, those stored earlier on these samples, and the gold reward's."""
        folder = Path(self.config.results or self.output).parent
        earlier = {name: entry for name, entry in entries.items() if name not in verdicts}
        known = verdicts | {name: store.load(folder, entry, self.samples) for name, entry in earlier.items()}
        if "gold_reward" not in known and (gold := gold_verdicts(self.samples, self.pairs)):
            known["gold_reward"] = gold
        return {name: own for name, own in known.items() if own}

    def _injections(self, verdicts: Verdicts) -> dict[str, dict | None] | None:
        """By policy, how often injections turn the first judge's verdict; None where that is not asked for."""
        if not self.config.injection_pairs:
            return None
        baseline, limit = self.samples[self.baseline], self.config.injection_pairs
        pairs = {name: (self.samples[name], baseline, verdicts[name, self.baseline]) for name in self.policies}
        return {name: injection_flip_rate(self.judges[0], *own, limit) for name, own in pairs.items()}

    def _policies(self, verdicts: Verdicts) -> dict[str, dict]:
        """Everything about every policy by the first judge."""
        policies = against_baseline(verdicts, self.samples, self.baseline, length_prior(self.judges[0]))
        for name, row in policies.items():
            own, rows = verdicts[name, self.baseline], self.samples[name]
            row["metrics"] = self._metrics(name)
            if self.anchor is not None:
                row["alpaca_eval"] = with_anchor(own, rows, self.samples[self.baseline], self.anchor)
            if self.labels:
                row["corrected"] = correction(own, self.labels[name, self.baseline], prompt_ids(rows))
            row["reward_quality"] = reward_quality(own, rows, self.samples[self.baseline])
            row.update(describe(rows), examples=_examples(own))
        return policies

    def _metrics(self, name: str) -> dict | None:
        rows = self.samples[name]
        if not all("completion" in row for row in rows):
            return None
        record = self.pipeline["stages"][f"samples-{name}"] if self.pipeline else {}
        known = {key: record[key] for key in PERPLEXITY if key in record}
        return text_metrics(rows) | known | self.classified.get(name, {})

    def _failures(self, probed: dict[str, list[dict]]) -> dict:
        """Failure diagnostics of every policy, and how often they cry wolf on the baseline's own samples.

        probed: diagnostics of probe sets by policy.
        """
        if not all("completion" in row for rows in self.samples.values() for row in rows):
            return {"failures": probed} if probed else {}
        baseline = self.samples[self.baseline]
        return {
            "failures": {name: diagnose(self.samples[name], baseline) + probed.get(name, []) for name in self.policies},
            "false_positives": false_positive_rate(baseline) if len(baseline) >= 8 else None,
        }

    def _notices(self, policies: dict[str, dict]) -> list[str]:
        notices = [notice for judge in self.judges for notice in judge.notices]
        for name, row in policies.items():
            if row["unparsable"]:
                share = row["unparsable"] / (row["pairs"] + row["unparsable"])
                notices.append(
                    f"{row['unparsable']} verdicts on {name} ({share:.1%}) could not be read and count nowhere."
                )
        return notices

    @property
    def output(self) -> Path:
        """Where the results go as JSON; the report stands beside it."""
        beside = Path(self.config.results).parent if self.config.results else Path(self.config.output_root)
        return Path(self.config.output or beside / "evaluation.json")

    def _write(self, results: dict) -> None:
        write_json(self.output, results)
        write(self.output.with_suffix(".md"), markdown(results, self.samples))
        if self.pipeline is not None:
            self.pipeline.setdefault("evaluations", {})[results["judge"]] = results
            self.pipeline["verdicts"] = results["verdicts"]
            write_json(Path(self.config.results), self.pipeline)


def _examples(verdicts: list) -> list[int]:
    """Pairs to read: the first loss, the first win, the first tie."""
    first = {}
    for i, verdict in enumerate(verdicts):
        first.setdefault(verdict.outcome, i)
    return [first[outcome] for outcome in (0.0, 1.0, 0.5) if outcome in first]
