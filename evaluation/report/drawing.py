"""What all figures of a report share: size, colours that colour-blind readers tell apart, axes, files."""

import base64
import io
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = "osD^vP*X"
# parse_math: names are the user's, and a dollar sign in one is no formula.
STYLE = {"text.parse_math": False, "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8}
STYLE |= {"svg.fonttype": "path", "svg.hashsalt": "report", "pdf.fonttype": 42}  # 42: TrueType, as journals ask
DPI = 200


@dataclass
class Picture:
    """A figure with its file name, the title above it and the caption below it."""

    name: str
    title: str
    caption: str
    figure: Figure

    def data(self, form: str) -> str:
        """The figure as a data URI, `svg` or `png`."""
        kind = {"svg": "image/svg+xml", "png": "image/png"}[form]
        return f"data:{kind};base64,{base64.b64encode(self.file(form)).decode()}"

    def file(self, form: str) -> bytes:
        """The figure's file, the same bytes for the same numbers."""
        held = io.BytesIO()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
        with rc_context(STYLE):
            self.figure.savefig(held, format=form, dpi=DPI, metadata=metadata)
        self.figure.set_layout_engine("none")  # what is laid out stays so in the other formats, in half the time
        return held.getvalue()


class Palette:
    """A colour and a marker for every algorithm, the same in all figures; the A/A row has those of what it repeats."""

    def __init__(self, names: list[str], aa_control: list[str] | None):
        self.names, self.aa_control = [name for name in names if not aa_control or name != aa_control[1]], aa_control

    def _place(self, name: str) -> int:
        original = self.aa_control[0] if self.aa_control and name == self.aa_control[1] else name
        return self.names.index(original) if original in self.names else len(self.names)

    def colour(self, name: str) -> str:
        return COLOURS[self._place(name) % len(COLOURS)]

    def marker(self, name: str) -> str:
        return MARKERS[self._place(name) % len(MARKERS)]

    def line(self, name: str) -> str:
        """Solid; dashed for the A/A row."""
        return "--" if self.aa_control and name == self.aa_control[1] else "-"


def axes(count: int = 1, width: float = 4.6, height: float = 3.4, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, at most `columns` in a row; width and height in inches each."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(width * columns, 5.6), height * rows), layout="constrained")
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for one in panels:
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure, panels


def legend(figure: Figure, *panels: Axes) -> None:
    """One legend for the whole figure, to its right, of what any of the panels shows."""
    pairs = [zip(*reversed(one.get_legend_handles_labels()), strict=True) for one in panels]
    known = {label: handle for own in pairs for label, handle in own}
    if known:
        figure.legend(known.values(), known.keys(), loc="outside right upper", frameon=False)
