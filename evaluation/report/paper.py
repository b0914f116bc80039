"""What a paper takes from a report: figures at column width as SVG and PDF, tables as LaTeX (booktabs)."""

import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from evaluation.report.drawing import Picture
from evaluation.report.tabular import Cell, Table
from rlhf_trl_ext.files import write

COLUMN, PAGE, LOWEST = 3.25, 6.75, 2.2  # inches: widths in two-column conference styles, a height
WIDE = 7.0  # inches on the page from which a figure takes both columns
POINTS = 7


def write_paper(folder: Path, pictures: list[Picture], tables: list[tuple[str, Table]]) -> Path:
    """Write every picture as `<name>.svg` and `.pdf` and every table as `<name>.tex`; the figures are resized."""
    for picture in pictures:
        fit(picture.figure)
        for form in ("svg", "pdf"):
            write(folder / f"{picture.name}.{form}", picture.file(form))
    for name, table in tables:
        write(folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.tex", latex(table))
    return folder


def fit(figure: Figure) -> None:
    """Make a figure as wide as one column, or two where it is wide, with small type and the legend below."""
    figure.set_layout_engine("constrained")
    width, height = figure.get_size_inches()
    own = PAGE if width > WIDE else COLUMN
    for text in figure.findobj(Text):
        text.set_fontsize(min(text.get_fontsize(), POINTS))
    for legend in list(figure.legends):
        names = [text.get_text() for text in legend.get_texts()]
        handles, style = legend.legend_handles, {"frameon": False, "fontsize": POINTS}
        legend.remove()
        figure.legend(handles, names, loc="outside lower center", ncols=3 if own == COLUMN else 6, **style)
    rows = -(-len(figure.legends[0].get_texts()) // 3) if figure.legends and own == COLUMN else 0
    figure.set_size_inches(own, max(height * own / width, LOWEST) + 0.2 * rows)


def latex(table: Table) -> str:
    """A table for `\\usepackage{booktabs}`: the note as a comment, intervals in brackets."""
    rows = [[_plain(cell) for cell in row] for row in table.rows]
    frame = pd.DataFrame(rows, columns=table.header)
    numbers = [all(cell.number for cell in column) for column in zip(*table.rows, strict=True)]
    aligned = "".join("r" if number else "l" for number in numbers) or "l" * len(table.header)
    body = frame.to_latex(index=False, escape=True, column_format=aligned)
    return f"% {table.title}. {' '.join(table.note.split())}\n{body}"


def _plain(cell: Cell) -> str:
    return f"{cell.text} [{cell.interval}]" if cell.interval else cell.text
