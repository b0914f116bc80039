"""Samples to read: where each policy gains most on the baseline, where as usual, and where it loses most."""

from difflib import SequenceMatcher

import numpy as np

from evaluation.comparison.run import Run
from evaluation.report.runs import Runs
from evaluation.report.tabular import Cell, Table
from rlhf_trl_ext.data.samples import finite_number
from rlhf_trl_ext.judging.prompt import as_text

LONGEST = 500  # characters of a text that are shown
SCORES = ("gold_reward", "reward")
READ = {"best": -1, "typical": 0.5, "worst": 0}  # place in the order of gains; 0.5: the median


def excerpts(runs: Runs, dataset: str) -> Table | None:
    """Best, typical and worst sample of every policy beside the baseline's on the same prompt, of the first seed."""
    run = runs.of(dataset)[0]
    rows, named = [], ""
    for name in (name for name in runs.rows if name in run.results["policies"]):
        gains, named = _gains(run, name)
        if gains is None:
            continue
        order = np.argsort(gains, kind="stable")
        order = order[~np.isnan(gains[order])]
        own, baseline = run.samples[name], run.samples[run.results["baseline"]]
        for title, place in READ.items():
            i = int(order[len(order) // 2 if place == 0.5 else place])
            rows.append(
                [Cell(f"{name}, {title}"), Cell(short(as_text(own[i]["prompt"]))), *marked(baseline[i], own[i])]
            )
    if not rows:
        return None
    note = f"By {named}, policy minus baseline, seed {run.seed}. Marked: words that the other does not have there."
    return Table("Best, typical and worst", ["policy", "prompt", "baseline", "policy's"], rows, note, "samples")


def _gains(run: Run, name: str) -> tuple[np.ndarray | None, str]:
    """What each sample gains on the baseline's, `(N,)`, nan where unknown, and by what; None where nothing says."""
    own, baseline = run.samples[name], run.samples[run.results["baseline"]]
    for key in SCORES:
        pairs = [[finite_number(row.get(key)) for row in rows] for rows in (own, baseline)]
        values = np.array(pairs, float)  # (2, N)
        if not np.isnan(values).all(axis=1).any():
            return values[0] - values[1], key.replace("_", " ")
    won = run.between(name, run.results["baseline"])
    known = won is not None and not np.isnan(won).all()
    return (won, f"the verdict of {run.results['judge']}") if known else (None, "")


def marked(baseline: dict, own: dict) -> list[Cell]:
    """Both completions with their scores, the words marked that differ."""
    texts = [short(row["completion"]).split(" ") for row in (baseline, own)]
    pieces: tuple[list, list] = ([], [])
    for kind, *ends in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        for side, (begin, end) in enumerate((ends[:2], ends[2:])):
            if end > begin:
                pieces[side].append((" ".join(texts[side][begin:end]), kind != "equal"))
    return [Cell(_scores(row), pieces=own) for own, row in zip(pieces, (baseline, own), strict=True)]


def _scores(row: dict) -> str:
    scores = [f"{key.removesuffix('_reward')} {row[key]:.2f}" for key in reversed(SCORES) if row.get(key) is not None]
    return f"{', '.join(scores)}" if scores else ""


def short(text: str) -> str:
    """A text in one line, cut where it is long; what cannot be printed is shown as �."""
    text = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
