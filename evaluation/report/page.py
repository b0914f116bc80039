"""The report of runs: one HTML file that opens offline, the same as PDF, and a PNG of every figure."""

import base64
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from evaluation.report import excerpts, incidents, judges, tabular, training
from evaluation.report.drawing import Picture
from evaluation.report.figures import pictures
from evaluation.report.paper import write_paper
from evaluation.report.recommendation import Recommendation, recommend
from evaluation.report.runs import Runs, as_folders, read
from evaluation.report.settings import changed, settings
from evaluation.report.tabular import Table
from rlhf_trl_ext.files import write

VENDOR = Path(__file__).parent / "vendor"
FIRST = ("-forest", "-kl-reward")  # names of the pictures that stand beside the recommendation


@dataclass
class Folded:
    """A long text, or a table, that a reader opens."""

    title: str
    text: str = ""
    table: Table | None = None


@dataclass
class Section:
    """A part of the page, in the order of its fields."""

    title: str
    recommendation: Recommendation | None = None
    first: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)

    def every_table(self) -> list[Table]:
        """The tables of numbers, those that a reader opens too."""
        own = [*self.tables, *(folded.table for folded in self.folded if folded.table)]
        return [table for table in own if table.kind != "samples"]


def report(
    folder: str | list[str],
    compare: str | None = None,
    algorithms: list[str] | None = None,
    metrics: list[str] | None = None,
    output: str | None = None,
    pdf: bool | None = None,
    logs: list[str] | None = None,
    paper: str | None = None,
) -> dict[str, Path]:
    """Write the report of a folder of results; returns the files: html, figures (a folder) and, if written, pdf.

    folder: of a benchmark, a pipeline, several pipelines, a sweep, a stage or adopted runs; or several such.
    compare: another folder of results, told against this one. algorithms, metrics: the only ones shown. pdf: whether
    a PDF is written as well; None: where the extra `pdf` is installed. logs: folders of runs, adopted ones too, whose
    training logs stand beside. paper: a folder for figures and tables as a paper takes them. Raises ValueError for
    wrong names or folders, and for pdf=true without the extra.
    """
    folders = as_folders(folder)
    logged = [own for own in folders if training.only_logs(own)]
    judged = [own for own in folders if own not in logged] or (folders if compare or algorithms or metrics else [])
    runs = read(judged, algorithms, metrics) if judged else None
    other = read(compare, key="compare") if compare else None
    path = Path(output or folders[0] / "report.html")
    sections = list(_sections(runs, other, pictures(runs))) if runs else []
    if logs or logged:
        sections += _logs([*logged, *(logs or [])])
    heading = _heading(runs, other) if runs else _unjudged(folders)
    write(path, _html(heading, sections, form="svg"))
    figures = path.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    drawn = [picture for section in sections for picture in (*section.first, *section.pictures)]
    for picture in drawn:
        (figures / f"{picture.name}.png").write_bytes(picture.file("png"))
    written = {"html": path, "figures": figures}
    if pdf is not False and (pdf or _printable()):
        written["pdf"] = _print(_html(heading, sections, form="png"), path.with_suffix(".pdf"))
    if paper:
        tables = [(f"{section.title} {table.title}", table) for section in sections for table in section.every_table()]
        written["paper"] = write_paper(Path(paper), drawn, tables)
    return written


def _logs(folders: list[str | Path]) -> Iterator[Section]:
    logs = training.read_logs(folders)
    drawn = training.picture(logs)
    alerts = incidents.alerts([(log.name, None, log.folder) for log in logs])
    tables = [training.table(logs), *filter(None, [alerts])]
    yield Section("Training", tables=tables, pictures=[drawn] if drawn else [])
    folded = [
        Folded(f"arguments of {log.name}, as overrides here", (log.folder / "overrides.txt").read_text())
        for log in logs
        if (log.folder / "overrides.txt").is_file()
    ]
    own = [log for log in logs if settings(log.folder)]
    folded += list(_as_recorded(own[0].name, own[0].folder)) if own else []
    for log in own[1:]:
        lines = changed(settings(own[0].folder), settings(log.folder))
        folded.append(Folded(f"{log.name}, against {own[0].name}", "\n".join(lines)))
    if folded:
        yield Section("Configurations", folded=folded)


def _sections(runs: Runs, other: Runs | None, by_dataset: dict[str, list[Picture]]) -> Iterator[Section]:
    several = len(runs.results["datasets"]) > 1
    if several:
        yield Section("Overview", tables=[tabular.overview(runs)])
    for dataset in filter(runs.of, runs.results["datasets"]):
        on = f" on {dataset}" if several else ""
        tables = [tabular.means(runs, dataset), tabular.comparison(runs, other, dataset) if other else None]
        tables += [draw(runs, dataset) for draw in (judges.by_judge, judges.people, judges.injections)]
        first = [picture for picture in by_dataset[dataset] if picture.name.endswith(FIRST)]
        others = [picture for picture in by_dataset[dataset] if picture not in first]
        every = tabular.differences(runs, dataset)
        folded = [Folded(every.title, table=every)] if every else []
        yield Section(f"Results{on}", recommend(runs, dataset), first, list(filter(None, tables)), others, folded)
        if tuning := tabular.tuning(runs, dataset):
            yield Section(f"Tuning{on}, apart from the results", tables=[tuning])
        flagged, alerts = incidents.failures(runs, dataset), incidents.alerts(incidents.policies(runs, dataset))
        if flagged or alerts:
            tables = [*(flagged or ())[:1], *filter(None, [alerts])]
            folded = [Folded(table.title, table=table) for table in (flagged or ())[1:]]
            yield Section(f"What went wrong{on}", tables=tables, folded=folded)
        if read := excerpts.excerpts(runs, dataset):
            yield Section(f"Samples{on}", tables=[read])
    if lost := incidents.failed(runs):
        yield Section("Cells without a result", tables=[lost])
    yield Section("Configurations and versions", folded=list(_settings(runs)))


def _settings(runs: Runs) -> Iterator[Folded]:
    """Versions and the configuration of the first policy; of every other run how its settings differ.

    A policy of the first run is compared with the first policy, one of another run with the same of the first run.
    """
    own = [run for dataset in runs.results["datasets"] for run in runs.of(dataset)]
    places = [(run, name, run.folder / name) for run in own for name in runs.rows if name in run.results["policies"]]
    if not places:
        return
    run, first, folder = places[0]
    yield from _as_recorded(f"{first} on {run.dataset}, seed {run.seed}", folder)
    for other, name, place in places[1:]:
        model, title = (first, folder) if other is run else (name, run.folder / name), f"{name} on {other.dataset}"
        lines = changed(settings(model[1]), settings(place))
        lines = [line for line in lines if other is run or not line.split(":")[0].endswith("seed")]
        if lines:
            against = first if other is run else f"{name} of the first run"
            yield Folded(f"{title}, seed {other.seed}, against {against}", "\n".join(lines))


def _as_recorded(name: str, folder: Path) -> Iterator[Folded]:
    for file, kind in (("versions.json", "versions"), ("config.yaml", "configuration")):
        if (folder / file).exists():
            yield Folded(f"{kind} of {name}", (folder / file).read_text())


def summary(runs: Runs) -> list[str]:
    """The results in sentences, those on algorithms that are not shown left out."""
    hidden = set(runs.results["algorithms"]) - set(runs.rows)
    words = (sentence.replace(":", " ").replace(",", " ").split() for sentence in runs.results["in_words"])
    return [
        sentence
        for sentence, own in zip(runs.results["in_words"], words, strict=True)
        if not hidden & set(own) or sentence == runs.results["budget"]["in_words"]
    ]


def _unjudged(folders: list[Path]) -> dict:
    """The notice at the top of a page without verdicts."""
    words = "Nothing here was judged: samples of these policies and one judge tell which is better."
    names = ", ".join(folder.resolve().name for folder in folders)
    return {"title": names, "subtitle": "Training logs.", "summary": [], "problems": [words]}


def _heading(runs: Runs, other: Runs | None) -> dict:
    results = runs.results
    seeds = ", ".join(map(str, results["seeds"]))
    subtitle = f"Data: {', '.join(results['datasets'])}. Seeds: {seeds}. Baseline: {results['baseline']}. "
    subtitle += f"Judge: {results['judge']}."
    title = results["name"] + (f" against {other.results['name']}" if other else "")
    return {"title": title, "subtitle": subtitle, "summary": summary(runs), "problems": runs.problems}


def _html(heading: dict, sections: list[Section], form: str) -> str:
    page = Environment(loader=PackageLoader("evaluation.report", "."), autoescape=True, trim_blocks=True)
    script = (VENDOR / "sortable.min.js").read_text()
    style = (VENDOR / "sortable-base.min.css").read_text() + (VENDOR.parent / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    libraries = {"script": Markup(script), "digest": digest, "style": Markup(style)}
    return page.get_template("page.html.j2").render(**heading, **libraries, sections=sections, form=form)


def _printable() -> bool:
    for name in ("weasyprint", "weasyprint.progress", "fontTools"):
        logging.getLogger(name).setLevel(logging.ERROR)  # every glyph that a font lacks; steps, from its import on
    try:
        import weasyprint  # noqa: F401 - also fails where its system libraries are absent
    except (ImportError, OSError):
        return False
    return True


def _print(html: str, path: Path) -> Path:
    """A PDF by WeasyPrint. Raises ValueError where it is not installed."""
    if not _printable():
        raise ValueError("pdf=true needs WeasyPrint and Pango: pip install '.[pdf]', apt install libpangoft2-1.0-0.")
    from weasyprint import HTML

    partial = path.with_name(path.name + ".partial")
    HTML(string=html).write_pdf(partial)
    partial.replace(path)
    return path
