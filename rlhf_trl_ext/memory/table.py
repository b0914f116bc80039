"""A prediction as rows of text."""

from rlhf_trl_ext.memory.cards import GIB
from rlhf_trl_ext.memory.phases import Prediction

KINDS = ("weights", "gradients", "optimizer", "buckets")


def rows(found: Prediction) -> list[tuple[str, str, float]]:
    """(role, kind, GiB on a GPU) of what is held, then (phase, kind, GiB) of what a phase adds, then the peak."""
    told = [(role, kind, kinds[kind] / GIB) for role, kinds in found.held.items() for kind in KINDS if kinds[kind]]
    told += [("always", kind, size / GIB) for kind, size in found.constant.items() if size]
    for phase, parts in found.phases.items():
        told += [(phase, kind, size / GIB) for kind, size in parts.items() if size]
    return told


def table(found: Prediction, title: str):
    """A rich table: a line for every role and kind, the sum of every phase, the peak last."""
    from rich.table import Table

    shown = Table("role or phase", "kind", "GiB per GPU", title=title, title_justify="left")
    shown.columns[2].justify = "right"
    for place, kind, size in rows(found):
        shown.add_row(place, kind, f"{size:.2f}")
    shown.add_section()
    for phase, parts in found.phases.items():
        shown.add_row(phase, "all", f"{(found.base + sum(parts.values())) / GIB:.2f}")
    shown.add_section()
    shown.add_row("peak", found.peak_phase, f"{found.peak / GIB:.2f}", style="bold")
    if found.host:
        shown.add_row("host", "a process", f"{found.host / GIB:.2f}")
    return shown
