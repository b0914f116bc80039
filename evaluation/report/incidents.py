"""Tables of what went wrong in runs: failure flags with samples, alerts, failed cells."""

from evaluation.quality.failures.diagnostics import diagnose
from evaluation.report.runs import Runs
from evaluation.report.tabular import Cell, Table, number
from rlhf_trl_ext.callbacks.records import read_metrics
from rlhf_trl_ext.judging.prompt import as_text

LONGEST = 500  # characters of a text that are shown


def flags(runs: Runs, dataset: str) -> list[Table]:
    """Failure diagnostics that are flagged, with the worst samples beside the baseline's on the same prompts."""
    rows, samples = [], []
    for run in runs.of(dataset):
        baseline = run.samples[run.results["baseline"]]
        for name in (name for name in runs.rows if name in run.results["policies"]):
            for flag in diagnose(run.samples[name], baseline):
                if flag["flagged"]:
                    head = [Cell(name), number(run.seed, "d"), Cell(flag["name"])]
                    values = [number(flag[key]) for key in ("value", "baseline")]
                    rows.append([*head, *values, Cell(flag["threshold"])])
                    samples += _side_by_side(name, flag, run.samples[name], baseline)
    tables = []
    header = ["algorithm", "seed", "diagnostic", "value", "baseline", "flagged when"]
    if rows:
        tables.append(Table("Failure flags", header, rows, "Against the baseline's samples on the same prompts."))
        text = "The worst samples of each flag."
        tables.append(Table("Samples side by side", ["prompt", "policy", "baseline"], samples, text, "samples"))
    return tables


def _side_by_side(name: str, flag: dict, own: list[dict], baseline: list[dict]) -> list[list[Cell]]:
    places = {row["completion"]: place for place, row in reversed(list(enumerate(own)))}
    rows = []
    for text in flag.get("worst") or []:
        if text in places:
            pair = (own[places[text]], baseline[places[text]])
            texts = [short(row["completion"]) + _scores(row) for row in pair]
            label = f"{name}, {flag['name']}: "
            rows.append([Cell(label + short(as_text(pair[0]["prompt"]))), *map(Cell, texts)])
    return rows


def _scores(row: dict) -> str:
    scores = [
        f"{key.removesuffix('_reward')} {row[key]:.2f}" for key in ("reward", "gold_reward") if row.get(key) is not None
    ]
    return f" [{', '.join(scores)}]" if scores else ""


def short(text: str) -> str:
    """A text in one line, cut where it is long; what cannot be printed is shown as �."""
    text = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def alerts(runs: Runs, dataset: str) -> Table | None:
    """Alerts of the stability monitor during training."""
    rows = []
    for run in runs.of(dataset):
        for name in runs.rows:
            path = run.folder / name / "alerts.jsonl"
            for alert in read_metrics(path) if path.exists() else []:
                cells = [Cell(str(alert.get(key, ""))) for key in ("step", "message")]
                rows.append([Cell(name), number(run.seed, "d"), *cells])
    return Table("Alerts during training", ["algorithm", "seed", "step", "alert"], rows) if rows else None


def failed(runs: Runs) -> Table | None:
    """Cells that failed, with the reason."""
    lost = [cell for cell in runs.results["cells"] if cell["status"] == "failed"]
    rows = [[Cell(c["dataset"]), number(c["seed"], "d"), Cell(c["algorithm"]), Cell(short(c["error"]))] for c in lost]
    return Table("Failed cells", ["data set", "seed", "algorithm", "reason"], rows) if rows else None
