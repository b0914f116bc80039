"""A prediction as rows of text."""

from rlhf_trl_ext.memory.cards import GIB
from rlhf_trl_ext.memory.phases import HELD, Prediction

KINDS = ("weights", "gradients", "optimizer", "buckets")
ALWAYS = (*HELD, "buckets")  # gradients are there in some phases only


def rows(prediction: Prediction) -> list[tuple[str, str, float]]:
    """(role, kind, GiB on a GPU) of what is held, then (phase, kind, GiB) of what a phase adds, then the peak."""
    lines = [
        (role, kind, kinds[kind] / GIB) for role, kinds in prediction.held.items() for kind in KINDS if kinds[kind]
    ]
    lines += [("always", kind, size / GIB) for kind, size in prediction.constant.items() if size]
    for phase, parts in prediction.phases.items():
        lines += [(phase, kind, size / GIB) for kind, size in parts.items() if size]
    return lines


def table(prediction: Prediction):
    """A rich table by role: GiB of a GPU that are always held, what the largest phase adds to them, and their sum."""
    grid = _grid("role", *(f"{kind}, GiB" for kind in ALWAYS), "together")
    for role, kinds in prediction.held.items():
        sizes = [kinds[kind] for kind in ALWAYS]
        grid.add_row(role, *(_number(size) for size in sizes), _number(sum(sizes)))
    blank = [""] * len(ALWAYS)
    for kind, size in prediction.constant.items():
        if size:
            grid.add_row(kind, *blank, _number(size))
    grid.add_section()
    for kind, size in prediction.phases[prediction.peak_phase].items():
        if size:
            grid.add_row(f"{kind} ({prediction.peak_phase})", *blank, _number(size))
    grid.add_section()
    grid.add_row("peak", *blank, _number(prediction.peak), style="bold")
    if prediction.host:
        grid.add_row("on the host, for each process", *blank, _number(prediction.host))
    return grid


def details(prediction: Prediction):
    """A rich table with a line for every role and kind, for what every phase adds, and for every phase in all."""
    grid = _grid("role or phase", "kind", "GiB")
    for place, kind, size in rows(prediction):
        grid.add_row(place, kind, f"{size:.2f}")
    grid.add_section()
    for phase, parts in prediction.phases.items():
        grid.add_row(phase, "all", _number(prediction.base + sum(parts.values())))
    return grid


def _grid(*columns: str):
    from rich.table import Table

    grid = Table(*columns)
    for column in grid.columns[1:]:
        column.justify = "left" if column.header == "kind" else "right"
    return grid


def _number(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.2f}"
