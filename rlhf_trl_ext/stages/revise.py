"""One run of critique and revision: replies in, demonstrations out."""

import json

from omegaconf import DictConfig

from rlhf_trl_ext.configuration.checks import ConfigError, as_config_error, build
from rlhf_trl_ext.files import written
from rlhf_trl_ext.stages.pairs import replies
from rlhf_trl_ext.stages.stage import Stage, exclusive


def revise(config: DictConfig) -> dict:
    """Write revisions.jsonl and excluded.jsonl into the stage's folder; returns its record. A killed run continues."""
    stage = Stage(config)
    if stage.result:
        return stage.result
    reviser, rows = _built(config)
    with exclusive(stage.folder, wait=not stage.overwrites), as_config_error():
        stage.begin()
        files = {done: stage.folder / f"{name}.jsonl" for done, name in ((True, "revisions"), (False, "excluded"))}
        counts = {True: 0, False: 0}
        with written(files[True]) as kept, written(files[False]) as left:
            for row in reviser.revisions(lambda: rows, len(rows)):
                done = row["completion"] is not None
                counts[done] += 1
                (kept if done else left).write(json.dumps(row) + "\n")
        if not counts[True]:
            raise ConfigError(f"no reply was revised: see {stage.folder / 'excluded.jsonl'}.")
        where = {"file": str(stage.folder / "revisions.jsonl")}
        return stage.finish({**where, "rows": counts[True], "excluded": counts[False]})


def preview(config: DictConfig) -> dict:
    """Estimate of requests and cost of revising, without sending any."""
    reviser, rows = _built(config)
    return {"replies": len(rows), **reviser.preview(lambda: rows)}


def _built(config: DictConfig) -> tuple:
    reviser = build(config.reviser, "reviser")
    with as_config_error():
        reviser.check()
        return reviser, replies(config, build(config.model, "model"), build(config.dataset, "dataset"))
