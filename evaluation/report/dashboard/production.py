"""Traffic of served policies as the dashboard shows it, beside training."""

import time
from pathlib import Path

from omegaconf import OmegaConf

from rlhf_trl_ext.configuration.folders import CONF

FILES = ("*.sqlite", "*/*.sqlite")
POINTS = 40  # of a curve, at most about
HEADER = ("traffic", "policy", "answers", "failed", "latency p50 / p95 / p99 (s)", "tokens / s", "reward", "thumbs up")


class Production:
    """Recorded traffic of the last `days` in SQLite files at most one folder below `root` that are no links out of it.

    A file that has grown is read anew, but for a tenth of the time at most: a busy one has millions of answers.
    """

    def __init__(self, root: Path, days: float):
        self.root, self.days = root, days
        self._read: dict[Path, tuple[tuple, float, dict]] = {}  # version, when to look again, what was found

    def files(self) -> list[dict]:
        """Of every file header and rows of a table, in_words, and points: policy -> as `TrafficReport.points`."""
        paths = sorted({path.resolve() for pattern in FILES for path in self.root.glob(pattern)})
        return [self._current(path) for path in paths if path.is_relative_to(self.root)]

    def _current(self, path: Path) -> dict:
        from evaluation.report import traffic  # noqa: F401 - takes seconds, which are no part of reading a file

        beside = [path, path.with_name(path.name + "-wal")]  # where SQLite writes first
        version = tuple((own.stat().st_size, own.stat().st_mtime_ns) for own in beside if own.exists())
        known, due, found = self._read.get(path, (None, 0.0, {}))
        begin = time.monotonic()
        if known != version and begin >= due:
            found = summary(path, str(path.relative_to(self.root)), time.time() - 86400 * self.days)
            end = time.monotonic()
            self._read[path] = version, end + 9 * (end - begin), found
        return found


def summary(path: Path, name: str, since: float) -> dict:
    """What one file says, see `Production.files`. since: seconds since 1970."""
    from evaluation.report.traffic import TrafficReport

    settings = OmegaConf.load(CONF / "monitor.yaml")
    try:
        report = TrafficReport(path, settings.window, OmegaConf.to_container(settings.rules), since)
    except ValueError as error:
        return {"header": HEADER, "rows": [], "points": {}, "in_words": [f"{name}: {error}"]}
    results = report.results()
    words = [row["in_words"] for row in results["comparisons"]]
    words += [f"ALERT {row['policy']}, {row['rule']}: {row['message']}" for row in results["alerts"]]
    report.window = max(1, max(map(len, report.by_policy.values())) // POINTS)
    points = {policy: report.points(policy) for policy in report.by_policy}
    rows = [[name, policy, *_row(own)] for policy, own in results["policies"].items()]
    return {"header": HEADER, "rows": rows, "points": points, "in_words": words}


def _row(own: dict) -> list:
    latency = " / ".join(f"{value:.3f}" for value in (own["latency"] or {}).values())
    speed = "" if own["tokens_per_second"] is None else f"{own['tokens_per_second']:.1f}"
    reward = "" if own["reward"] is None else "{:.2f} ({:.2f} to {:.2f})".format(*own["reward"])
    return [own["answers"], _share(own["failure_rate"]), latency, speed, reward, _share(own["thumbs_up"])]


def _share(rate: list[float] | None) -> str:
    return "" if rate is None else "{:.1%} ({:.1%} to {:.1%})".format(*rate)
