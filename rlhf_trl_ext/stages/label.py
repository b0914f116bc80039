"""One labelling run: pairs, labels, a data set to train on, and a report."""

import json
import time
from pathlib import Path

from omegaconf import DictConfig

from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, build
from rlhf_trl_ext.files import write, written
from rlhf_trl_ext.judging.labellers import Labeller
from rlhf_trl_ext.judging.labelling import Labelling
from rlhf_trl_ext.stages.label_report import Tally, markdown
from rlhf_trl_ext.stages.pairs import Pairs, write_pairs
from rlhf_trl_ext.stages.stage import Stage, exclusive


def label(config: DictConfig) -> dict:
    """Write labels.jsonl, excluded.jsonl, report.json and report.md into the stage's folder; returns its record.

    A killed run continues: what was answered is in the labeller's record. Raises ConfigError for mistakes, before
    anything is asked, and, with the files written, when too many labels could not be read.
    """
    stage = Stage(config)
    if stage.result:
        return stage.result
    labeller, labelling, model, dataset = _built(config)
    with exclusive(stage.folder, wait=not stage.overwrites), as_config_error():
        if stage.result:
            return stage.result
        stage.begin()
        pairs = write_pairs(config, model, dataset, stage.folder / "pairs.jsonl")
        return stage.finish(_label(stage.folder, pairs, labeller, labelling))


def preview(config: DictConfig) -> dict:
    """What labelling would take; nothing is asked. Replies that are not sampled yet are sampled."""
    labeller, labelling, model, dataset = _built(config)
    stage = Stage(config)
    if not stage.result:
        stage.begin()
    with as_config_error():
        pairs = write_pairs(config, model, dataset, stage.folder / "pairs.jsonl")
        return {"pairs": pairs.count, **labeller.preview(lambda: labelling.displays(pairs, labeller))}


def _built(config: DictConfig) -> tuple:
    """Everything that is built before time is spent; mistakes are told here."""
    labeller, labelling = build(config.labeller, "labeller"), build(config.labelling, "labelling")
    with as_config_error():
        labeller.check()
    dataset = build(config.dataset, "dataset")
    # In a pipeline, dataset=labelled stands for labels that are still to be made, of the prompts of its rest.
    return labeller, labelling, build(config.model, "model"), getattr(dataset, "rest", None) or dataset


def _label(folder: Path, pairs: Pairs, labeller: Labeller, labelling: Labelling) -> dict:
    begin, tally = time.monotonic(), Tally()
    with written(folder / "labels.jsonl") as kept, written(folder / "excluded.jsonl") as left:
        for found in labelling.labels(pairs, labeller, pairs.count):
            trains = labelling.trains(found)
            tally.add(found, trains)
            if trains:
                kept.write(json.dumps(found.row()) + "\n")
            else:
                left.write(json.dumps({"status": found.status, "pair": found.pair, "said": found.evidence}) + "\n")
    report = {"labeller": labeller.name, "seconds": round(time.monotonic() - begin, 1), **tally.summary()}
    report |= {"cost": labeller.cost, "notices": list(labeller.notices)}
    write(folder / "report.json", json.dumps(report, indent=2))
    write(folder / "report.md", markdown(report))
    _check(report, labelling, folder)
    return {"file": str(folder / "labels.jsonl"), "report": str(folder / "report.md"), **report["counts"]}


def _check(report: dict, labelling: Labelling, folder: Path) -> None:
    counts = report["counts"]
    share = counts["unparsable"] / max(counts["pairs"] - counts["identical"], 1)
    if share > labelling.max_unparsable:
        raise ConfigError(
            f"labelling.max_unparsable={labelling.max_unparsable} is exceeded: {counts['unparsable']} labels "
            f"({share:.1%}) could not be read, see {folder / 'excluded.jsonl'}; mend the prompt, or raise it."
        )
    if not counts["rows"]:
        raise ConfigError(f"no pair got a label that can be trained on: see {folder / 'report.md'}.")
