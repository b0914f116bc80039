"""Tables of what went wrong in runs: failures by kind with samples, alerts, failed cells."""

from pathlib import Path

from evaluation.quality.failures.diagnostics import diagnose
from evaluation.quality.failures.kinds import SEVERE, kind_of, rank
from evaluation.report.excerpts import marked, short
from evaluation.report.runs import Runs
from evaluation.report.tabular import Cell, Table, number
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.judging.prompt import as_text


def failures(runs: Runs, dataset: str) -> tuple[Table, Table] | None:
    """A row for every diagnostic that is flagged, severe ones first; and the samples that raised it most."""
    raised: dict[str, list[tuple[str, int, dict]]] = {}
    samples = []
    for run in runs.of(dataset):
        baseline = run.samples[run.results["baseline"]]
        for name in (name for name in runs.rows if name in run.results["policies"]):
            for flag in (flag for flag in diagnose(run.samples[name], baseline) if flag["flagged"]):
                raised.setdefault(flag["name"], []).append((name, run.seed, flag))
                samples += _side_by_side(name, flag, run.samples[name], baseline)
    if not raised:
        return None
    rows = [_row(runs, name, own) for name, own in sorted(raised.items(), key=lambda item: rank(item[0]))]
    header = ["severity", "kind", "diagnostic", "policies", "value", "baseline", "flagged when"]
    note = "Against the baseline's samples on the same prompts; a range where policies or seeds differ."
    table = Table("Failures by kind", header, rows, note)
    header = ["flag", "prompt", "baseline", "policy's"]
    return table, Table("The worst samples of each flag, beside the baseline's", header, samples, "", "samples")


def _row(runs: Runs, name: str, raised: list[tuple[str, int, dict]]) -> list[Cell]:
    kind = kind_of(name)
    severe = kind.severity == SEVERE
    policies = list(dict.fromkeys(policy for policy, _, _ in raised))
    everyone = len(policies) > 1 and set(policies) == {row for row in runs.rows if row in runs.results["algorithms"]}
    words = f"all {len(policies)}: look at the task or the reward" if everyone else ", ".join(policies)
    values = [Cell(_range([flag[key] for _, _, flag in raised]), number=True) for key in ("value", "baseline")]
    own = [Cell("severe" if severe else "notice", bad=severe), Cell(kind.words, bad=severe), Cell(name), Cell(words)]
    return [*own, *values, Cell(raised[0][2]["threshold"])]


def _range(values: list[float]) -> str:
    ends = [f"{end(values):.3f}" for end in (min, max)]
    return " to ".join(dict.fromkeys(ends))


def _side_by_side(name: str, flag: dict, own: list[dict], baseline: list[dict]) -> list[list[Cell]]:
    places = {row["completion"]: place for place, row in reversed(list(enumerate(own)))}
    rows = []
    for place in (places[text] for text in flag.get("worst") or [] if text in places):
        head = [Cell(f"{name}, {flag['name']}"), Cell(short(as_text(own[place]["prompt"])))]
        rows.append([*head, *marked(baseline[place], own[place])])
    return rows


def policies(runs: Runs, dataset: str) -> list[tuple[str, int, Path]]:
    """Name, seed and folder of every policy."""
    return [(name, run.seed, run.folder / name) for run in runs.of(dataset) for name in runs.rows]


def alerts(places: list[tuple[str, int | None, Path]]) -> Table | None:
    """Alerts of the stability monitor during training. places: name, seed and folder of every run."""
    rows = []
    for name, seed, folder in places:
        path = folder / "alerts.jsonl"
        for alert in read_metrics(path) if path.exists() else []:
            cells = [Cell(str(alert.get(key, ""))) for key in ("step", "message")]
            rows.append([Cell(name), number(seed, "d"), *cells])
    return Table("Alerts during training", ["algorithm", "seed", "step", "alert"], rows) if rows else None


def failed(runs: Runs) -> Table | None:
    """Cells that failed, with the reason."""
    lost = [cell for cell in runs.results["cells"] if cell["status"] == "failed"]
    rows = [[Cell(c["dataset"]), number(c["seed"], "d"), Cell(c["algorithm"]), Cell(short(c["error"]))] for c in lost]
    return Table("Failed cells", ["data set", "seed", "algorithm", "reason"], rows) if rows else None
