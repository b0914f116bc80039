"""What recorded traffic says of the policies that were served: speed, errors, rewards, feedback, comparisons."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from evaluation.verdicts.statistics import in_words, prompts_needed
from rlhf_trl_ext.callbacks.stability import StabilityRules
from rlhf_trl_ext.markdown import rows as table
from rlhf_trl_ext.serving.traffic import read
from rlhf_trl_ext.statistics import mean_interval, wilson_interval

QUANTILES = (0.5, 0.95, 0.99)
METRICS = ("reward", "latency", "length", "failures")  # of a point
LEAST = 2  # comparisons from which a win rate is told


class TrafficReport:
    """Answers of a traffic file, by policy. window: answers that make one point of a curve. rules: see `conf/monitor`.

    Raises ValueError for an absent file, one without answers, and rules that are not allowed.
    """

    def __init__(self, path: str | Path, window: int = 50, rules: dict[str, dict] | None = None, since: float = 0.0):
        self.window, self.rules = window, rules or {}
        for name, rule in StabilityRules(self.rules).rules.items():
            if rule.metric not in METRICS:
                raise ValueError(f"rules.{name}.metric={rule.metric}: allowed are {', '.join(METRICS)}.")
        self.answers = list(read(path, since))
        if not self.answers:
            raise ValueError(f"traffic={path} holds no answers since then; serve some, or look further back.")
        self.by_policy: dict[str, list[dict]] = {}
        for answer in self.answers:
            self.by_policy.setdefault(answer["policy"], []).append(answer)

    def results(self) -> dict:
        """Everything, as JSON holds it; latencies in seconds, rates with `[low, high]` at 95 %."""
        policies = {name: self._policy(answers) for name, answers in self.by_policy.items()}
        return {"policies": policies, "alerts": self.alerts(), "comparisons": self.comparisons()}

    def _policy(self, answers: list[dict]) -> dict:
        whole = [answer for answer in answers if answer["status"] == "complete"]
        finished = [answer for answer in answers if answer["status"] != "cancelled"]  # by the client: no fault
        failed = len(finished) - len(whole)
        span = max(answer["time"] for answer in answers) - min(answer["time"] - answer["latency"] for answer in answers)
        tokens = sum(answer["completion_tokens"] or 0 for answer in whole)
        row = {
            "answers": len(answers),
            "failures": failed,
            "failure_rate": _rate(failed, len(finished)),
            "latency": _quantiles(answer["latency"] for answer in whole),
            "first_token": _quantiles(answer["first_token"] for answer in whole if answer["first_token"] is not None),
            "tokens": tokens,
            "tokens_per_second": tokens / span if span > 0 else None,
        }
        rewards = [answer["reward"] for answer in whole if answer["reward"] is not None]
        row["reward"] = [float(np.mean(rewards)), *mean_interval(np.array(rewards))] if rewards else None
        row["scored"] = len(rewards)
        return row | _feedback(whole)

    def points(self, policy: str) -> list[dict]:
        """Means of every `window` answers of a policy: `time`, `reward`, `latency`, `length`, `failures`."""
        answers, points = self.by_policy[policy], []
        for start in range(0, len(answers) - self.window + 1, self.window):
            part = answers[start : start + self.window]
            whole = [answer for answer in part if answer["status"] == "complete"]
            values = {
                "reward": [answer["reward"] for answer in whole if answer["reward"] is not None],
                "latency": [answer["latency"] for answer in whole],
                "length": [answer["completion_tokens"] for answer in whole if answer["completion_tokens"] is not None],
                "failures": [float(answer["status"] not in ("complete", "cancelled")) for answer in part],
            }
            means = {name: float(np.mean(own)) for name, own in values.items() if own}
            points.append({"time": part[-1]["time"], **means})
        return points

    def alerts(self) -> list[dict]:
        """What the rules say of every policy's points, in their order."""
        raised = []
        for policy in self.by_policy:
            rules = StabilityRules(self.rules).rules
            for point in self.points(policy):
                for name, rule in rules.items():
                    if message := rule.update(point.get(rule.metric)):
                        raised.append({"policy": policy, "rule": name, "time": point["time"], "message": message})
        return raised

    def comparisons(self) -> list[dict]:
        """The live A/B: of every two policies, how often people preferred an answer of one to the other's."""
        owners = {answer["id"]: answer for answer in self.answers}
        games: dict[tuple[str, str], list[tuple[float, str]]] = {}
        for answer in self.answers:
            for given in answer["feedback"]:
                other = owners.get(given["value"]) if given["kind"] == "preferred_over" else None
                if other is None or other["policy"] == answer["policy"]:
                    continue
                pair = tuple(sorted((answer["policy"], other["policy"])))
                games.setdefault(pair, []).append((float(pair[0] == answer["policy"]), json.dumps(answer["prompt"])))
        rows = []
        for (policy, against), own in games.items():
            outcomes = np.array([outcome for outcome, _ in own])
            if len(outcomes) < LEAST:
                continue
            groups = np.unique([prompt for _, prompt in own], return_inverse=True)[1]
            row = {"win_rate": float(outcomes.mean()), "win_rate_ci": mean_interval(outcomes, (0, 1), groups)}
            row |= {"policy": policy, "against": against, "pairs": len(own), "prompts_needed": prompts_needed(outcomes)}
            rows.append({**row, "in_words": in_words(policy, against, row)})
        return rows


def _quantiles(values: Iterable[float]) -> dict[str, float] | None:
    values = list(values)
    return {f"p{100 * q:.0f}": float(np.quantile(values, q)) for q in QUANTILES} if values else None


def _rate(count: int, total: int) -> list[float] | None:
    return [count / total, *wilson_interval(count, total)] if total else None


def _feedback(answers: list[dict]) -> dict:
    """Of each person the last word on an answer: thumbs up, ratings of 4 and 5, and edits, as rates."""
    last = {}
    for answer in answers:
        for given in answer["feedback"]:
            last[answer["id"], given["person"], given["kind"]] = given["value"]
    thumbs = [value for (_, _, kind), value in last.items() if kind == "thumb"]
    ratings = [value for (_, _, kind), value in last.items() if kind == "rating"]
    edited = {answer for (answer, _, kind) in last if kind == "edit"}
    spoken = {answer for answer, _, _ in last}
    return {
        "thumbs_up": _rate(thumbs.count("up"), len(thumbs)),
        "thumbs": len(thumbs),
        "satisfied": _rate(sum(value >= 4 for value in ratings), len(ratings)),
        "ratings": len(ratings),
        "rating_mean": [float(np.mean(ratings)), *mean_interval(np.array(ratings), (1, 5))] if ratings else None,
        "edited": _rate(len(edited), len(spoken)),
        "feedback_rate": _rate(len(spoken), len(answers)),
    }


def markdown(results: dict) -> str:
    """The report: tables, alerts and sentences."""
    speed, messages = [], []
    for name, row in results["policies"].items():
        latencies = [_seconds(row[key]) for key in ("latency", "first_token")]
        rate = "" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.1f}"
        speed.append([name, row["answers"], _share(row["failure_rate"]), *latencies, rate])
        rewards = (
            "" if row["reward"] is None else f"{row['reward'][0]:.2f} ({_ends(row['reward'], 2)}), {row['scored']}"
        )
        rates = [f"{_share(row[key])}, {row[count]}" if row[key] else "" for key, count in COUNTED]
        messages.append([name, rewards, *rates, _share(row["edited"]), _share(row["feedback_rate"])])
    columns = ["policy", "answers", "failed", "latency p50 / p95 / p99 (s)", "first token (s)", "tokens / s"]
    parts = ["# Traffic", "", *table(columns, speed), ""]
    columns = ["policy", "reward, scored", "thumbs up, of", "4 or 5 stars, of", "edited", "with feedback"]
    parts += [
        *table(columns, messages),
        "",
        "Intervals: 95 %, Wilson for rates; of each person the last word counts.",
        "",
    ]
    parts += [f"- {row['in_words']}" for row in results["comparisons"]] or [
        "- No two policies were compared by people."
    ]
    parts += [f"- ALERT {row['policy']}, {row['rule']}: {row['message']}" for row in results["alerts"]]
    parts += [] if results["alerts"] else ["- No alert."]
    return "\n".join(parts) + "\n"


COUNTED = (("thumbs_up", "thumbs"), ("satisfied", "ratings"))


def _ends(values: list[float], digits: int) -> str:
    return f"{values[1]:.{digits}f} to {values[2]:.{digits}f}"


def _share(values: list[float] | None) -> str:
    return "" if values is None else f"{values[0]:.1%} ({values[1]:.1%} to {values[2]:.1%})"


def _seconds(values: dict[str, float] | None) -> str:
    return "" if values is None else " / ".join(f"{value:.3f}" for value in values.values())
