"""The launchers for notebooks: a pipeline stage by stage, and judging and metrics of samples of any source.

    from evaluation import Pipeline, evaluate

    run = Pipeline("experiment=demo", "policies=[dpo,ppo]", "seed=1")
    run.train("sft"), run.train("reward"), run.train("ppo")
    run.samples("ppo"), run.results()
    evaluate(baseline=table, policies={"mine": "samples.jsonl"}, judge="gold")

Samples are files, pandas tables, data sets of `datasets`, or lists of rows with prompt and completion; keys and their
values are those of the launchers. Mistakes raise ValueError (`ConfigError`) before time is spent.
"""

import copy
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_trl_ext.data.samples import read_samples, samples_of

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    Source = str | Path | list[dict] | pd.DataFrame | datasets.Dataset


class Pipeline:
    """A pipeline of `launchers.pipeline`, its stages run one by one or together.

    overrides: as on the command line. config: the whole configuration. folder: where results.json goes. Finished
    stages are reused, interrupted ones resume. Raises ConfigError for wrong settings, before anything runs.
    """

    def __init__(self, *overrides: str):
        from evaluation.verdicts.results import judge_of, pipeline_folder
        from rlhf_trl_ext.configuration.composing import compose_config
        from rlhf_trl_ext.configuration.review import review
        from rlhf_trl_ext.stages.pipeline import Pipeline

        self.config = compose_config("pipeline", overrides)
        review(self.config, "pipeline", list(overrides))
        self.pipeline = Pipeline(self.config, lambda name: compose_config(f"algorithm/{name}"))
        self.pipeline.check()
        judge_of(self.config)
        chosen = dict(override.partition("=")[::2] for override in overrides)
        self.folder = pipeline_folder(self.config, {"dataset": "embedded", "model": "tiny", **chosen})

    @property
    def stages(self) -> list[str]:
        """Names of all stages: models that are trained, and `samples-<policy>` for what is sampled of them."""
        return list(self.pipeline.configs)

    def train(self, name: str) -> dict:
        """Run a stage and those that it needs; returns its record and its `folder`. Raises ConfigError if it fails."""
        self._run([name])
        return {**self.pipeline.records[name], "folder": self.pipeline.folders[name]}

    def metrics(self, name: str) -> "pd.DataFrame":
        """What a trained stage logged: one row a log entry, by `step`."""
        import pandas as pd

        from rlhf_trl_ext.callbacks.records import read_metrics

        return pd.DataFrame(read_metrics(Path(self.train(name)["folder"]) / "metrics.jsonl")).set_index("step")

    def samples(self, name: str) -> "pd.DataFrame":
        """Samples of a policy, trained first where it is not: prompt, completion and scores, one row each."""
        import pandas as pd

        from rlhf_trl_ext.stages.pipeline import SAMPLES

        return pd.DataFrame(read_samples(self.train(SAMPLES + name)["file"]))

    def results(self) -> "pd.DataFrame":
        """Run what has not run, judge what is not judged, write results.json: one row a policy, the baseline first."""
        from evaluation.verdicts.results import write_results

        self._run(self.stages)
        results = write_results(self.config, self.pipeline, self.folder)
        return _table({results["baseline"]: results["baseline_result"], **results["policies"]})

    def _run(self, names: list[str]) -> None:
        from rlhf_trl_ext.configuration.checks import ConfigError
        from rlhf_trl_ext.stages.execution import Execution, StageFailed

        waiting, needed = list(names), {}
        while waiting:
            name = waiting.pop()
            if name not in self.pipeline.configs:
                raise ConfigError(f"stage={name}: no such stage; allowed are {', '.join(self.stages)}.")
            if name not in self.pipeline.records and name not in needed:
                needed[name] = self.pipeline.configs[name]
                waiting += filter(None, needed[name].needs)
        part = copy.copy(self.pipeline)  # with the pipeline's own records and folders
        part.configs = needed
        if needed and (failures := Execution({"": part}, [None] * self.pipeline.jobs).run()):
            raise StageFailed("\n".join(failures.values()))


def evaluate(*overrides: str, **keys) -> "pd.DataFrame":
    """`launchers.evaluate`: one row a policy, with its win rate against the baseline, intervals, biases, metrics.

    keys: those of `conf/evaluate.yaml`, baseline, policies and aa_control being any samples; either `results` of a
    pipeline or both of the former. overrides: deeper ones, as `judge.model=<name>`. Files are written only where
    `output` or `results` says so. The whole of evaluation.json is in `.attrs["evaluation"]`.
    """
    from evaluation.verdicts.evaluate import Evaluation
    from rlhf_trl_ext.configuration.composing import compose_config

    with tempfile.TemporaryDirectory() as work:
        for key in ("baseline", "aa_control"):
            if keys.get(key) is not None:
                keys[key] = _file(keys[key], Path(work, f"{key}.jsonl"))
        policies = (keys.get("policies") or {}).items()
        files = {name: _file(own, Path(work, f"policy-{i}.jsonl")) for i, (name, own) in enumerate(policies)}
        keys |= {"policies": files} if files else {}
        keys["output"] = str(keys.get("output") or Path(work, "evaluation.json"))
        config = compose_config("evaluate", _with_groups(overrides, keys))
        _settle(config, keys)
        evaluation = Evaluation(config, lambda name: compose_config("evaluate", [f"judge={name}"]).judge)
        results = evaluation.run()
    table = _table({results["baseline"]: results["baseline_result"], **results["policies"]})
    table.attrs["evaluation"] = results
    return table


def judge(first: "Source", second: "Source", *overrides: str, judge: str = "gold") -> "pd.DataFrame":
    """Verdicts on samples of the same prompts, pair by pair: outcome (1: the first is better), preference, ...

    judge: a name of `conf/judge`; overrides: its settings, as `judge.model=<name>`. See `Verdict` for the columns.
    """
    import pandas as pd

    from evaluation.verdicts.pairwise import judge_pairs
    from evaluation.verdicts.results import judge_of
    from rlhf_trl_ext.configuration.composing import compose_config

    sides = {"first": samples_of(first, "first"), "second": samples_of(second, "second")}
    own = judge_of(compose_config("evaluate", [f"judge={judge}", *overrides]))
    verdicts = judge_pairs(own, sides, [("first", "second")])["first", "second"]
    texts = {"prompt": [row["prompt"] for row in sides["first"]]}
    texts |= {name: [row.get("completion") for row in rows] for name, rows in sides.items()}
    return pd.DataFrame(texts).join(pd.DataFrame([asdict(verdict) for verdict in verdicts]))


def metrics(samples: "Source | dict[str, Source]") -> "pd.DataFrame":
    """Metrics of samples: mean scores, lengths, diversity, ROUGE where there are demonstrations; one row a policy."""
    from evaluation.quality.metrics import text_metrics
    from evaluation.verdicts.results import describe

    by_name = samples if isinstance(samples, dict) else {"samples": samples}
    rows = {name: samples_of(own, name) for name, own in by_name.items()}
    return _table({name: describe(own) | text_metrics(own) for name, own in rows.items()})


def _table(rows: dict[str, dict]) -> "pd.DataFrame":
    """One row a policy, its index; nested parts, and columns without a value, are left out."""
    import pandas as pd

    kept = {
        name: {key: value for key, value in row.items() if not isinstance(value, dict) and key != "examples"}
        for name, row in rows.items()
    }
    return pd.DataFrame.from_dict(kept, orient="index").dropna(axis="columns", how="all").rename_axis("policy")


def _file(samples: "Source", path: Path) -> str:
    """The file of samples; those that are in none are written to `path`."""
    if isinstance(samples, str | Path):
        return str(samples)
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in samples_of(samples, path.stem)))
    return str(path)


def _with_groups(overrides: tuple[str, ...], keys: dict) -> list[str]:
    """Overrides with the keys that choose files of a group."""
    groups = ("judge", "probes", "classifier")
    return [f"{key}={keys.pop(key)}" for key in groups if key in keys] + list(overrides)


def _settle(config, keys: dict) -> None:
    """Put keys into a configuration. Raises ConfigError for those that it does not have."""
    from rlhf_trl_ext.configuration.checks import ConfigError

    for key, value in keys.items():
        if key not in config.keys():  # `in config` is false for a key that waits for its value  # noqa: SIM118
            raise ConfigError(f"{key}={value}: no such key; allowed are {', '.join(map(str, config))}.")
        config[key] = str(value) if isinstance(value, Path) else value
