"""One labelling run: pairs, labels, a data set to train on, and a report."""

import json
import time
from pathlib import Path

from omegaconf import DictConfig

from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, build
from rlhf_trl_ext.files import write, written
from rlhf_trl_ext.judging.judge import Judge, check_judges_text
from rlhf_trl_ext.judging.labelling import Labelling
from rlhf_trl_ext.judging.verdicts import check_readable
from rlhf_trl_ext.stages.label_report import Tally, markdown
from rlhf_trl_ext.stages.pairs import Pairs, write_pairs
from rlhf_trl_ext.stages.stage import Stage, exclusive


def label(config: DictConfig) -> dict:
    """Write labels.jsonl, excluded.jsonl, report.json and report.md into the stage's folder; returns its record.

    A killed run continues: what was answered is in the judge's record. Raises ConfigError for mistakes, before
    anything is asked, and, with the files written, when too many labels could not be read.
    """
    stage = Stage(config)
    if stage.result:
        return stage.result
    judge, labelling, model, dataset = _built(config)
    with exclusive(stage.folder, wait=not stage.overwrites), as_config_error():
        if stage.result:
            return stage.result
        stage.begin()
        pairs = write_pairs(config, model, dataset, stage.folder / "pairs.jsonl")
        return stage.finish(_label(stage.folder, pairs, judge, labelling))


def preview(config: DictConfig) -> dict:
    """Estimate of requests and cost of labelling, without sending any. Missing replies are sampled."""
    judge, labelling, model, dataset = _built(config)
    stage = Stage(config)
    if not stage.result:
        stage.begin()
    with as_config_error():
        pairs = write_pairs(config, model, dataset, stage.folder / "pairs.jsonl")
        return {"pairs": pairs.count, **judge.preview(lambda: labelling.displays(pairs, judge))}


def _built(config: DictConfig) -> tuple:
    """Everything that is built before time is spent; raises for wrong settings."""
    judge, labelling = build(config.judge, "judge"), build(config.labelling, "labelling")
    with as_config_error():
        check_judges_text(judge, "pairs to label")
        judge.check()
    dataset = build(config.dataset, "dataset")
    # In a pipeline, dataset=labelled stands for labels that are still to be made, of the prompts of its rest.
    return judge, labelling, build(config.model, "model"), getattr(dataset, "rest", None) or dataset


def _label(folder: Path, pairs: Pairs, judge: Judge, labelling: Labelling) -> dict:
    begin, tally = time.monotonic(), Tally()
    with written(folder / "labels.jsonl") as kept, written(folder / "excluded.jsonl") as left:
        for label in labelling.labels(pairs, judge, pairs.count):
            trains = labelling.trains(label)
            tally.add(label, trains)
            if trains:
                kept.write(json.dumps(label.row(), allow_nan=False) + "\n")
            else:
                left.write(json.dumps({"status": label.status, "pair": label.pair, "said": label.evidence}) + "\n")
    report = {"judge": judge.name, "seconds": round(time.monotonic() - begin, 1), **tally.summary()}
    report |= {"cost": judge.cost, "notices": list(judge.notices)}
    write(folder / "report.json", json.dumps(report, indent=2, allow_nan=False))
    write(folder / "report.md", markdown(report))
    _check(report, judge, folder)
    return {"file": str(folder / "labels.jsonl"), "report": str(folder / "report.md"), **report["counts"]}


def _check(report: dict, judge: Judge, folder: Path) -> None:
    counts = report["counts"]
    check_readable(judge, counts["unparsable"], counts["pairs"] - counts["identical"], str(folder / "excluded.jsonl"))
    if not counts["rows"]:
        raise ConfigError(f"no pair got a label that can be trained on: see {folder / 'report.md'}.")
