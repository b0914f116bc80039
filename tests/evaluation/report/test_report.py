"""The report of runs: what it says and draws, that it is one file, and that a browser opens it offline."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import browse, needs_browser
from conftest import ROOT
from matplotlib.colors import to_rgb
from runs_on_disk import write_pipeline

from evaluation.report import page as page_of_report
from evaluation.report.comparisons import comparisons
from evaluation.report.drawing import Palette, Picture, axes, legend
from evaluation.report.excerpts import excerpts
from evaluation.report.figures import matrix, pictures
from evaluation.report.page import report
from evaluation.report.paper import write_paper
from evaluation.report.pareto import frontier
from evaluation.report.recommendation import recommend
from evaluation.report.runs import Runs, read
from evaluation.report.tables import COLUMNS, samples, tidy
from evaluation.report.tabular import Cell, Table, number
from evaluation.verdicts import evaluate
from evaluation.verdicts import results as verdict_results
from evaluation.verdicts.evaluate import Evaluation
from rlhf_trl_ext.judging.judge import Judge, ScoreJudge
from rlhf_trl_ext.judging.verdicts import Opinion, Verdict

NUMBER = {"mean": 0.75, "interval": [0.5, 0.8]}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three seeds of a pipeline with two objectives."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1, 2):
        write_pipeline(folder / f"seed{seed}", seed, objectives=("helpfulness", "harmlessness"))
    (folder / "seed0" / "grpo" / "alerts.jsonl").write_text(
        '{"step": 7, "rule": "kl_spike", "metric": "kl", "value": 9.0, "message": "kl is 9"}\n'
    )
    return folder


@pytest.fixture(scope="module")
def page(results):
    return report(str(results), pdf=False)["html"].read_text()


@pytest.fixture
def without_figures(monkeypatch):
    """They take most of a report's time."""
    monkeypatch.setattr(page_of_report, "pictures", lambda runs: {dataset: [] for dataset in runs.results["datasets"]})


def test_one_file_says_what_was_found(page):
    assert "dpo has a lower win rate than grpo" in page
    assert "grpo_again has the highest win rate against sft, 1.000 (1.000 to 1.000), and is better than dpo." in page
    assert "grpo and grpo_again are not distinguishable in win rate" in page
    assert "kl is 9" in page and "configuration of dpo on embedded, seed 0" in page and "git_commit" in page
    assert "grpo on embedded, seed 0, against dpo</summary><pre>- name: dpo\n+ name: grpo</pre>" in page
    assert "On the Pareto frontier (dotted): " in page and "&lt;0&gt;" not in page.split("</style>")[0]


def test_the_first_screen_recommends_and_says_how_far_to_believe_it(results, page):
    recommendation = recommend(read(str(results)), "embedded")
    first = html.unescape(page.split("<details")[0])
    assert recommendation.take in first and all(reason in first for reason in recommendation.reasons)
    reasons = " ".join(recommendation.reasons)
    for part in (
        "Judged against one another, it is better than dpo",
        "3 training seeds",
        "Is this a fair judge?",
        "sampled tokens",
        "equal length",
    ):
        assert part in reasons, part


def test_a_policy_is_only_taken_where_it_beats_the_baseline_and_a_common_flag_is_one_line():
    def recommended(rates, flags):
        means = {name: {"win_rate": {"mean": sum(ends) / 2, "interval": ends}} for name, ends in rates.items()}
        cell = {"dataset": "d", "status": "finished", "train_seconds": 9, "sampled_tokens": 5, "peak_memory_mb": 1}
        cells = [{**cell, "algorithm": name, "flags": flags.get(name, [])} for name in rates]
        summary = {"means": means, "differences": [], "matrix": {"names": [], "cells": {}}, "fair_judge": "yes"}
        results = {"baseline": "sft", "judge": "gold", "algorithms": list(rates), "by_dataset": {"d": summary}}
        run = SimpleNamespace(dataset="d", results=results, samples={name: [{}] * 40 for name in rates})
        return recommend(Runs(Path(), {**results, "cells": cells}, [run]), "d")

    assert recommended({"a": [0.6, 0.8], "b": [0.2, 0.4]}, {}).take.startswith("Take a: it wins 70%")
    assert recommended({"a": [0.4, 0.7]}, {}).take.startswith("Keep sft: a, which wins most, wins 55%")
    assert recommended({"a": [0.1, 0.3]}, {}).take.startswith("Keep sft: the best of the others, a, wins 20%")
    flagged = recommended({"a": [0.6, 0.8], "b": [0.2, 0.4]}, {"a": ["short"], "b": ["copying", "short"]})
    assert any("Every policy is flagged for short" in reason for reason in flagged.reasons)
    assert "Read samples of b: it is flagged for copying." in flagged.reasons and flagged.warnings == []
    assert "another seed may rank otherwise" in " ".join(flagged.reasons)


def test_planted_failures_are_red_and_first(tmp_path, without_figures):
    """`repeats` has the highest scores, so that nothing but its texts speaks against it."""
    folder = write_pipeline(tmp_path / "run", 0, policies=("grpo", "repeats", "copies", "pads"))
    found = recommend(read(str(folder)), "embedded")
    assert found.take.startswith("Take grpo: ")
    assert [warning.split(" (")[0] for warning in found.warnings] == [
        "repeats repeats itself, pads or does not end and has little to say",
        "copies copies the prompt and has little to say",
        "pads pads or does not end",
    ]
    page = report(str(folder), pdf=False)["html"].read_text()
    first = page.split('<ul class="why">')[1].split("</ul>")[0]
    assert [line.startswith('<li class="bad">') for line in first.split("\n") if "<li" in line][:4] == [True] * 3 + [
        False
    ]
    rows = page.split("Failures by kind")[1].split("<tbody>")[1].split("</tbody>")[0].split("</tr>")
    assert 'class="bad"' in rows[0] and "severe" in rows[0]
    severities = [re.findall(r"severe|notice", row)[0] for row in rows if "<td" in row]
    assert severities == sorted(severities, reverse=True)


def test_what_cannot_be_told_apart_is_grey_in_the_matrix(results):
    runs = read(str(results), ["dpo", "grpo"])
    known = comparisons(runs, "embedded")
    # Every prompt of every seed is won by grpo (0.85 against 0.55, deviation 0.1), but for few.
    assert known["grpo", "dpo"]["distinguishable"] and known["grpo", "dpo"]["mean"] > 0.9
    assert known["dpo", "grpo"]["mean"] == pytest.approx(1 - known["grpo", "dpo"]["mean"])
    assert all(0 <= end <= 1 for own in known.values() for end in own["interval"])  # grpo's would end above 1
    runs.results["by_dataset"]["embedded"]["matrix"]["cells"]["dpo"]["grpo"] |= {"p": 0.2, "interval": [0.4, 0.6]}
    drawn = matrix(runs, "embedded", Palette(runs.rows, None))
    grey = [patch for patch in drawn.figure.axes[0].patches if patch.get_facecolor()[:3] == to_rgb("#ececec")]
    assert len(grey) == 2  # both orders of the one pair


def test_policies_that_were_not_judged_together_are_compared_by_their_win_rates(results):
    runs = read(str(results))
    runs.results["by_dataset"]["embedded"]["matrix"]["cells"]["dpo"]["grpo"] = None
    own = comparisons(runs, "embedded")["grpo", "dpo"]
    assert not own["direct"] and 0 < own["mean"] < 1 and own["interval"][0] > 0


def test_samples_are_best_typical_and_worst_with_differences_marked():
    scores = {"sft": (0.5, 0.5, 0.5), "dpo": (0.6, 0.1, 0.9)}
    texts = {"sft": "look in <b>the</b> hall", "dpo": "look near <b>the</b> hall"}
    samples = {
        name: [{"prompt": f"p{i}", "completion": texts[name], "reward": own[i]} for i in range(3)]
        for name, own in scores.items()
    }
    run = SimpleNamespace(dataset="d", seed=0, results={"baseline": "sft", "policies": ["dpo"]}, samples=samples)
    table = excerpts(Runs(Path(), {"algorithms": ["dpo"]}, [run]), "d")
    assert [[row[0].text, row[1].text] for row in table.rows] == [
        ["dpo, best", "p2"],
        ["dpo, typical", "p0"],
        ["dpo, worst", "p1"],
    ]
    assert table.rows[0][3].pieces == [("look", False), ("near", True), ("<b>the</b> hall", False)]


def test_nothing_is_fetched(page):
    loaded = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page) + re.findall(r"url\(([^)]*)\)", page)
    assert loaded and all(place.startswith("data:") for place in loaded)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in page  # no other script runs, whatever texts hold


@pytest.mark.slow
def test_every_figure_has_labelled_axes_with_units(results, tmp_path):
    drawn = pictures(read(results))["embedded"]
    names = {picture.name.removeprefix("embedded-") for picture in drawn}
    expected = {"forest", "win-rates", "learning-curves", "training", "kl-reward", "overoptimisation"}
    assert names == expected | {"sample-efficiency", "time-and-memory", "pareto"}
    for picture in drawn:
        for one in picture.figure.axes:
            labels = (one.get_xlabel(), one.get_ylabel())
            assert any("(" in label for label in labels) or all("algorithm" in label for label in labels), picture.name
        assert picture.file("png").startswith(b"\x89PNG") and picture.caption
    written = report(str(results), output=str(tmp_path / "page.html"), pdf=False)
    assert {path.stem for path in written["figures"].glob("*.png")} == {picture.name for picture in drawn}


def test_a_paper_gets_figures_at_column_width_and_latex_tables(tmp_path):
    figure, panels = axes(2)
    panels[0].plot([0, 1], [0, 1], label="dpo")
    legend(figure, *panels)
    narrow, _ = axes()
    table = Table("Every & number", ["algorithm", "win rate"], [[Cell("grpo_vi"), number(NUMBER, ".2f")]], "Of 1 seed.")
    own = [Picture(name, "", "", own) for name, own in (("wide", figure), ("narrow", narrow))]
    write_paper(tmp_path, own, [("Results Every & number", table)])
    for name, inches in (("wide", 6.75), ("narrow", 3.25)):
        width = re.search(r'width="([\d.]+)pt"', (tmp_path / f"{name}.svg").read_text())[1]
        assert float(width) / 72 == inches
    assert (tmp_path / "wide.pdf").read_bytes().startswith(b"%PDF")
    lines = (tmp_path / "results-every-number.tex").read_text().splitlines()
    assert lines[:3] == ["% Every & number. Of 1 seed.", r"\begin{tabular}{lr}", r"\toprule"]
    assert r"grpo\_vi & 0.75 [0.50 to 0.80] \\" in lines


@pytest.mark.slow
def test_filters_and_comparison(results, tmp_path):
    other = write_pipeline(tmp_path / "other", 0)
    asked = {"algorithms": ["grpo"], "metrics": ["gold_reward"], "output": str(tmp_path / "page.html"), "pdf": False}
    page = report(str(results), compare=str(other), **asked)["html"].read_text()
    assert "Against other" in page and "dpo" not in page and "win rate of the row" not in page
    # The same numbers on the one common seed: no difference.
    assert "+0.000" in page and "not distinguishable" in page
    with pytest.raises(ValueError, match=r"metrics=speed: allowed are win_rate, "):
        report(str(results), metrics=["speed"])
    with pytest.raises(ValueError, match=r"neither benchmark.json nor results.json"):
        report(str(tmp_path / "nothing"))


class Preference(Judge):
    """Gives probabilities as a language model does, counts the pairs that it is asked for, and sees an order."""

    name, asked = "m:helpfulness", 0

    def compare(self, first, second):
        Preference.asked += len(first)
        wins = [a["gold_reward"] > b["gold_reward"] for a, b in zip(first, second, strict=True)]
        return [Verdict(float(won), 0.2 + 0.6 * won, float(won), float(won)) for won in wins]


def test_what_a_language_model_judged_is_reported_and_not_judged_again(tmp_path, monkeypatch, without_figures):
    """Two policies, each judged against the baseline only: there is no verdict on one against the other."""
    monkeypatch.setattr(verdict_results, "judge_of", lambda config: Preference())
    folder = write_pipeline(tmp_path / "judged", 0, policies=("dpo", "grpo"))
    assert Preference.asked == 2 * 48
    page = report(str(folder), pdf=False)["html"].read_text()
    assert Preference.asked == 2 * 48 and "m:helpfulness" in page
    (run,) = read(folder).runs
    assert set(run.verdicts) == {("dpo", "sft"), ("grpo", "sft")} and run.verdicts["dpo", "sft"][0].shown_first in (
        0,
        1,
    )


def test_verdicts_of_a_further_judge_stand_beside_those_on_recorded_scores(
    tmp_path, composed, monkeypatch, without_figures
):
    folder = write_pipeline(tmp_path / "run", 0, policies=("dpo",))
    monkeypatch.setattr(Preference, "asked", 0)
    more = [f"results={folder / 'results.json'}", f"output_root={tmp_path}", f"labels={tmp_path / 'labels.jsonl'}"]
    labels = ({"policy": "dpo", "pair": pair, "outcome": float(pair % 3 > 0)} for pair in range(12))
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "build", lambda config, name: Preference())
        for _ in range(2):  # the second finds all verdicts
            Evaluation(composed("evaluate", *more), None).run()
    assert Preference.asked == 48
    assert "m:helpfulness was not measured; `python -m launchers.evaluate" in (folder / "evaluation.md").read_text()
    monkeypatch.setattr(ScoreJudge, "compare", None)
    page = report(str(folder), pdf=False)["html"].read_text()
    assert Preference.asked == 48 and "By other judges" in page and "agrees" in page
    by_people = page.split("By people")[1].split("</table>")[0]
    assert 'data-sort="0.667"' in by_people and 'data-sort="12"' in by_people  # people alone: 8 of 12; labels
    assert "Prompt injection" in page and "how often it turns m:helpfulness was not measured" in page
    assert read(folder).runs[0].results["evaluations"].keys() == {"m:helpfulness"}


class Obedient(Preference):
    """Prefers the reply with the higher gold reward, and any that has none: one that was changed."""

    def opinion(self, display):
        first, second = (row.get("gold_reward", 9.0) + ("Ignore all" in row["completion"]) for row in display.samples)
        return Opinion(0.5 + 0.4 * (first > second) - 0.4 * (first < second))

    compare = Judge.compare


def test_the_rate_of_injections_stands_in_every_report(tmp_path, composed, monkeypatch, without_figures):
    """One injection of four is obeyed; the others leave two replies without a gold reward equal, a tie."""
    folder = write_pipeline(tmp_path / "run", 0, policies=("dpo",))
    monkeypatch.setattr(evaluate, "build", lambda config, name: Obedient())
    more = [f"results={folder / 'results.json'}", f"output_root={tmp_path}", "injection_pairs=3"]
    Evaluation(composed("evaluate", *more), None).run()
    told = "Prompt injection on dpo: 3 of 12 injections in the worse reply made m:helpfulness name it the better one "
    assert told + "(25.0%, 8.9% to 53.2%)." in (folder / "evaluation.md").read_text()
    page = report(str(folder), pdf=False)["html"].read_text()
    row = re.search(r"verdicts turned.*?</table>", page, re.DOTALL)[0]
    assert ">0.250 <" in row and "0.089 to 0.532" in row and ">12<" in row and "not measured" not in page


def test_rows_that_are_no_numbers_take_nothing_else_away(tmp_path):
    """Logs and samples with NaN and "None", a damaged pipeline beside, a name that TeX and HTML would read."""
    strange = "<i>$\\frac"
    write_pipeline(tmp_path / "good", 0, policies=("dpo", strange))
    for name in ("sft", "dpo"):
        path = tmp_path / "good" / f"samples-{name}" / "samples.jsonl"
        text = path.read_text().replace('"reward": ', '"reward": "None", "was": ', 1)
        path.write_text(text.replace('"gold_reward": ', '"gold_reward": NaN, "had": ', 1))
    log = '{"step": 1, "max_steps": 2, "sampled_tokens": 5, "reward": "None"}\n{"step": 2, "reward": NaN}\nnull\n'
    (tmp_path / "good" / "dpo" / "metrics.jsonl").write_text(log)
    write_pipeline(tmp_path / "torn", 1, policies=("grpo",))
    (tmp_path / "torn" / "grpo" / "profile.json").write_text('{"phases"')
    (tmp_path / "torn" / "samples-sft" / "config.yaml").write_text("- [: bad")
    (tmp_path / "good" / "dpo" / "alerts.jsonl").write_text('{"step": NaN}\n[]\n')
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text('{"baseline": "sft", "policies"')
    page = report(str(tmp_path), pdf=False)["html"].read_text()
    assert "&lt;i&gt;$" in page and "<i>" not in page and "bad/results.json is no results.json" in page
    assert "good: gold_reward judged other samples than those that are there now" in page


def logged_stage(folder: Path, rate: float, steps=3) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: dpo\nargs: {{learning_rate: {rate}}}\noutput_dir: {folder}\n")
    lines = [{"step": i + 1, "loss": 0.7 - rate * i, "entropy": 0.5} for i in range(steps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_single_stage_has_a_report(tmp_path):
    stage = logged_stage(tmp_path / "dpo-0123456789abcdef", 0.1)
    (stage / "alerts.jsonl").write_text('{"step": 2, "rule": "loss_spike", "message": "loss is 9"}\n')
    page = report(str(stage), pdf=False)["html"].read_text()
    assert "Nothing here was judged" in page and "loss is 9" in page and "configuration of dpo" in page


def test_a_metric_of_one_step_has_no_curve(tmp_path):
    """The end of a run is logged at its last step once more."""
    stage = logged_stage(tmp_path / "short", 0.1, steps=1)
    with (stage / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "loss": 0.5, "seconds": 2.0}\n')
    assert "<figure>" not in report(str(stage), pdf=False)["html"].read_text()


def test_jobs_of_a_sweep_are_named_by_what_was_swept(tmp_path):
    """A sweep's folder holds job.json alone; its stages lie elsewhere."""
    for job, rate in enumerate((0.1, 0.2)):
        stage = logged_stage(tmp_path / "stages" / f"dpo-{job:016x}", rate)
        (tmp_path / "multirun" / str(job)).mkdir(parents=True)
        mark = {"status": "finished", "record": {"folder": f"elsewhere/stages/{stage.name}"}}
        (tmp_path / "multirun" / str(job) / "job.json").write_text(json.dumps(mark))
    page = report(str(tmp_path / "multirun"), pdf=False)["html"].read_text()
    assert ">dpo learning_rate=0.1<" in page and ">dpo learning_rate=0.2<" in page
    assert "<pre>- args.learning_rate: 0.1\n+ args.learning_rate: 0.2</pre>" in page


def test_several_folders_stand_side_by_side(tmp_path, without_figures):
    folders = [write_pipeline(tmp_path / name, 0, policies=("dpo",)) for name in ("low", "high")]
    for folder, rate in zip(folders, (0.1, 0.2), strict=True):
        (folder / "dpo" / "config.yaml").write_text(f"name: dpo\nargs: {{learning_rate: {rate}}}\n")
    stage = logged_stage(tmp_path / "dpo-0123456789abcdef", 0.3)
    page = report([*map(str, folders), str(stage)], pdf=False, output=str(tmp_path / "page.html"))["html"].read_text()
    assert "Everything side by side" in page and "Results on embedded learning_rate=0.1" in page
    assert "Results on embedded learning_rate=0.2" in page and "Training logs" in page
    (tmp_path / "high" / "benchmark.json").write_text("{}")
    with pytest.raises(ValueError, match="is a benchmark: give it alone"):
        read([str(folder) for folder in folders])


def test_a_pipeline_without_policies_has_a_page(tmp_path):
    page = report(str(write_pipeline(tmp_path / "sft", 0, policies=())), pdf=False)["html"].read_text()
    assert "Baseline: sft" in page


def test_the_frontier_by_hand():
    points = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.5, 0.5), "d": (0.4, 0.5), "e": (0.0, 1.0)}
    assert frontier(points) == ["a", "b", "c", "e"]


def test_tidy_tables_hold_every_number_once(results):
    table = tidy(results)
    assert tuple(table.columns) == COLUMNS and len(table.drop_duplicates()) == len(table)
    assert set(table["kind"]) == {"final", "training", "held_out"} and set(table["seed"]) == {0, 1, 2}
    kept = json.loads((results / "seed1" / "results.json").read_text())["policies"]["grpo"]
    row = table.query("kind == 'final' and metric == 'gold_reward' and seed == 1 and algorithm == 'grpo'")
    assert row["value"].item() == kept["gold_reward_mean"] and row["sampled_tokens"].item() == 2000
    held_out = table.query("kind == 'held_out' and metric == 'rewards/gold_reward/mean' and algorithm == 'grpo'")
    assert sorted(held_out["step"].unique()) == [10, 20] and len(held_out) == 6
    assert len(samples(results)) == 3 * 4 * 48


def test_the_launcher_takes_what_the_function_takes(tmp_path, monkeypatch, capsys, without_figures):
    from hydra.core.global_hydra import GlobalHydra

    from launchers.report import main

    folder = write_pipeline(tmp_path / "a run (2)=ü", 0, policies=("dpo",))
    other = write_pipeline(tmp_path / "other", 1, policies=("dpo",))
    for given in (str(folder), f"folder=['{folder}',{other}]"):
        monkeypatch.setattr("sys.argv", ["launchers.report", given, "pdf=false", "metrics=[win_rate]"])
        main()
        GlobalHydra.instance().clear()
        assert f"html: {folder / 'report.html'}" in capsys.readouterr().out and (folder / "report.html").is_file()
    assert "Seeds: 0, 1." in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_pdf(results, tmp_path):
    pytest.importorskip("weasyprint", reason="the extra pdf is not installed")
    written = report(str(results), output=str(tmp_path / "page.html"), pdf=True)
    assert written["pdf"].read_bytes().startswith(b"%PDF") and written["pdf"].stat().st_size > 50_000


@pytest.mark.slow
@needs_browser
def test_a_browser_opens_it_without_errors_and_without_the_network(results, page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page)
    assert browse(path.as_uri(), tmp_path)[1:] == ([], [])
    # The check sees what it looks for.
    path.write_text('<img src="http://example.invalid/x.png"><script>console.error("broken")</script>')
    _, console, asked = browse(path.as_uri(), tmp_path)
    assert any("broken" in line for line in console) and asked == ["http://example.invalid/x.png"]


@pytest.mark.slow
@needs_browser
def test_a_click_on_a_columns_name_sorts(page, tmp_path):
    """By steps all are equal; by win rate grpo and its repetition, then dpo, and the other way round."""
    click = "document.querySelectorAll('th').forEach(one => one.textContent === 'win rate' && one.click())"
    path, orders = tmp_path / "report.html", []
    for times in (1, 2):
        script = f"<script>for (let i = 0; i < {times}; i++) setTimeout(() => {{ {click} }}, 200 * i)</script>"
        path.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", page).replace("</body>", f"{script}</body>"))
        rows = browse(path.as_uri(), tmp_path)[0].split("Every number")[1].split("<tbody>")[1].split("</tbody>")[0]
        orders.append(re.findall(r"<tr><td[^>]*>(\w+)", rows))
    assert orders[0][-1] == "dpo" and orders[1][0] == "dpo" and len(orders[0]) == len(orders[1]) == 3


def run_notebook() -> dict:
    """The names that the notebook's cells leave."""
    notebook = json.loads((ROOT / "evaluation" / "report" / "analysis.ipynb").read_text())
    names: dict = {"display": print}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    return names


@pytest.mark.slow
def test_the_notebook_runs(results, monkeypatch):
    monkeypatch.setenv("RESULTS", str(results))
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = run_notebook()
    assert set(names["final"]["algorithm"]) == {"sft", "dpo", "grpo", "grpo_again"}
    assert len(names["axes"].lines) == 6 and names["axes"].get_xlabel()  # two algorithms sample, on three seeds
    assert len(names["drawn"]) == 3 * 4 * 48
    # what the pipeline's own results say of the same samples
    kept = json.loads((results / "seed0" / "results.json").read_text())["policies"]["dpo"]
    assert names["quality"].loc["dpo", "gold_reward_mean"] == pytest.approx(kept["gold_reward_mean"])
    assert (names["policy"], names["baseline"]) == ("dpo", "sft")
    assert names["verdicts"]["outcome"].mean() == kept["win_rate"]
