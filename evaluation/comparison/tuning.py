"""Settings of every algorithm chosen alike, on seeds of their own, before the benchmark compares."""

import numbers
from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from evaluation.comparison.common_kl import common_kl
from rlhf_trl_ext.configuration.checks import ConfigError, build

TRY = "_try"  # between an algorithm's name and the number of one of its tries


class Tuning:
    """The tries of every algorithm as a benchmark of their own, with as many tries for each.

    benchmark: the one that compares. make: configuration -> a benchmark of the tries. A try is a mapping of arguments
    to values: a number, or `x2` for twice the algorithm's own. Raises ConfigError for seeds that are compared on,
    arguments that no algorithm has, values that are none, and what the command line sets as well.
    """

    def __init__(self, benchmark, make: Callable[[DictConfig], object]):
        config = benchmark.config
        self.tries = [dict(each) for each in config.tune.tries or []]
        self.metric, self.algorithms = config.tune.metric, list(config.algorithms)
        self.within = config.tune.within
        if shared := sorted(set(config.tune.seeds) & set(config.seeds)):
            raise ConfigError(
                f"tune.seeds={list(config.tune.seeds)}: settings would be chosen on seeds that are compared "
                f"({', '.join(map(str, shared))} of seeds); give others."
            )
        own = next(iter(benchmark.pipelines.values())).configs
        self.values = {name: self._values(own[name]) for name in self.algorithms}
        for argument in {argument for each in self.tries for argument in each} - set(config.tune.get("optional") or []):
            if not any(argument in each for tries in self.values.values() for each in tries):
                raise ConfigError(f"tune.tries: none of {', '.join(self.algorithms)} has an argument {argument}.")
        self.common_kl: dict[str, dict | None] = {}
        self.benchmark = make(self._configuration(config, benchmark.folder / "tuning"))
        self._check_effect()

    def _values(self, stage: DictConfig) -> list[dict[str, float]]:
        """For every try the arguments that an algorithm has, as numbers."""
        args = build(stage.args, f"stages.{stage.name}.args", output_dir="unused")
        return [
            {name: value(name, given, getattr(args, name)) for name, given in each.items() if hasattr(args, name)}
            for each in self.tries
        ]

    def _configuration(self, config: DictConfig, folder) -> DictConfig:
        tuned = OmegaConf.create(OmegaConf.to_container(config))
        tuned.merge_with({"tune": None, "seeds": list(config.tune.seeds), "output_dir": str(folder)})
        tuned.merge_with({"aa_control": None, "threshold": None})
        tuned.algorithms = [f"{name}{TRY}{i}" for name in self.algorithms for i in range(len(self.tries))]
        for name, tries in self.values.items():
            for i, args in enumerate(tries):
                tuned.stages[f"{name}{TRY}{i}"] = {"algorithm": name, "args": args}
        return tuned

    def _check_effect(self) -> None:
        """Raises ConfigError for an argument that the command line sets: all tries were one."""
        for pipeline in self.benchmark.pipelines.values():
            for name, tries in self.values.items():
                for i, args in enumerate(tries):
                    stage = pipeline.configs[f"{name}{TRY}{i}"]
                    for argument, value in args.items():
                        if stage.args[argument] != value:
                            raise ConfigError(
                                f"tune.tries: {argument}={value} of {name} has no effect, as the command line sets "
                                f"args.{argument}={stage.args[argument]}; leave one of the two."
                            )

    def run(self) -> dict[str, dict[str, dict]]:
        """Data set -> algorithm -> its tries with their means over seeds, and the number of the chosen (`choice`).

        A try that fails on a seed is never chosen. `common_kl` is then known: data set -> `common_kl.common_kl`'s, and
        the key of its reward, gold where there is one. Raises ConfigError where all of an algorithm fail, or where
        samples lack the metric.
        """
        results = self.benchmark.run()
        self.common_kl = {data: self._common_kl(data, results["cells"]) for data in results["datasets"]}
        means = {dataset: results["by_dataset"][dataset]["means"] for dataset in results["datasets"]}
        return {data: {name: self._chosen(data, name, own) for name in self.values} for data, own in means.items()}

    def _common_kl(self, dataset: str, cells: list[dict]) -> dict | None:
        """None where samples have no KL."""
        cells = [cell for cell in cells if cell["dataset"] == dataset and cell["status"] == "finished"]
        golden = all(cell["gold_reward_mean"] is not None for cell in cells)
        reward = "gold_reward" if golden else "reward"
        if not cells or any(cell["kl_mean"] is None or cell[f"{reward}_mean"] is None for cell in cells):
            return None
        points: dict[str, dict] = {name: {} for name in self.algorithms}
        for cell in cells:
            own = points[cell["algorithm"].rpartition(TRY)[0]].setdefault(cell["seed"], [])
            own.append((cell["kl_mean"], cell[f"{reward}_mean"]))
        seeds = {name: list(own.values()) for name, own in points.items() if own}
        return {"reward": reward, **common_kl(seeds)}

    def _chosen(self, dataset: str, name: str, means: dict[str, dict]) -> dict:
        rows = [means.get(f"{name}{TRY}{i}") for i in range(len(self.tries))]
        if not any(rows):
            raise ConfigError(f"tune: every try of {name} on {dataset} failed; see {self.benchmark.folder}.")
        scores = [None if row is None else row.get(self.metric) for row in rows]
        if not any(scores):
            known = ", ".join(sorted({metric for row in rows if row for metric in row}))
            raise ConfigError(f"tune.metric={self.metric}: samples of {dataset} have none; they have {known}.")
        kl = [None if row is None else row.get("kl") for row in rows]
        chosen = choice(scores, kl, self.within)
        own = zip(self.values[name], scores, kl, strict=True)
        tries = [{"args": args, self.metric: score, "kl": drift} for args, score, drift in own]
        return {"tries": tries, "chosen": chosen, "at_the_end": self._at_the_end(name, chosen)}

    def _at_the_end(self, name: str, best: int) -> list[str]:
        """Arguments whose chosen value is the lowest or highest tried, beyond which a better one may lie."""
        ends = []
        for argument, value in self.values[name][best].items():
            tried = {each[argument] for each in self.values[name] if argument in each}
            if len(tried) > 1 and value in (min(tried), max(tried)):
                ends.append(argument)
        return ends


def choice(scores: list[dict | None], kl: list[dict | None], within: float) -> int:
    """The number of the try with the lowest KL of those at most `within` standard errors of the best below the best.

    The one-standard-error rule (Breiman et al. 1984, Hastie et al. 2009, 7.10) with drift from the reference in the
    place of complexity: a score that is not told from the best does not pay for more of it. scores, kl: estimates over
    seeds, None for a try that failed; without KL the best is taken.
    """
    known = [i for i, score in enumerate(scores) if score]
    best = max(known, key=lambda i: scores[i]["mean"])
    if any(kl[i] is None for i in known):
        return best
    lowest = scores[best]["mean"] - within * scores[best]["spread"]
    return min((i for i in known if scores[i]["mean"] >= lowest), key=lambda i: (kl[i]["mean"], -scores[i]["mean"]))


def value(name: str, given, own) -> float:
    """The value of a try. own: the algorithm's."""
    if isinstance(given, numbers.Real) and not isinstance(given, bool):
        return given
    try:
        return float(f"{float(str(given).removeprefix('x')) * own:.6g}") if str(given).startswith("x") else float(given)
    except (TypeError, ValueError):
        raise ConfigError(
            f"tune.tries: {name}={given} is no value: give a number, or a factor such as x2 of the algorithm's own "
            f"({own})."
        ) from None
