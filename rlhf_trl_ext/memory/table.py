"""A prediction as rows of text."""

from rlhf_trl_ext.memory.cards import GIB
from rlhf_trl_ext.memory.phases import Prediction

KINDS = ("weights", "gradients", "optimizer", "buckets")


def rows(prediction: Prediction) -> list[tuple[str, str, float]]:
    """(role, kind, GiB on a GPU) of what is held, then (phase, kind, GiB) of what a phase adds, then the peak."""
    lines = [
        (role, kind, kinds[kind] / GIB) for role, kinds in prediction.held.items() for kind in KINDS if kinds[kind]
    ]
    lines += [("always", kind, size / GIB) for kind, size in prediction.constant.items() if size]
    for phase, parts in prediction.phases.items():
        lines += [(phase, kind, size / GIB) for kind, size in parts.items() if size]
    return lines


def table(prediction: Prediction, title: str):
    """A rich table: a line for every role and kind, the sum of every phase, the peak last."""
    from rich.table import Table

    grid = Table("role or phase", "kind", "GiB per GPU", title=title, title_justify="left")
    grid.columns[2].justify = "right"
    for place, kind, size in rows(prediction):
        grid.add_row(place, kind, f"{size:.2f}")
    grid.add_section()
    for phase, parts in prediction.phases.items():
        grid.add_row(phase, "all", f"{(prediction.base + sum(parts.values())) / GIB:.2f}")
    grid.add_section()
    grid.add_row("peak", prediction.peak_phase, f"{prediction.peak / GIB:.2f}", style="bold")
    if prediction.host:
        grid.add_row("host", "a process", f"{prediction.host / GIB:.2f}")
    return grid
