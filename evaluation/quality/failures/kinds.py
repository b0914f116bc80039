"""Kinds of failures: diagnostics that speak of one thing, and how much it matters."""

from typing import NamedTuple

SEVERE, NOTICE = 0, 1


class Kind(NamedTuple):
    """severity: SEVERE for a policy that should not be used as it is, NOTICE for one to be read first. words: what it
    does, after its name."""

    severity: int
    words: str


KINDS = {
    Kind(SEVERE, "repeats itself"): ("repetition (rep-4)", "endless loop"),
    Kind(SEVERE, "copies the prompt"): ("copying the prompt", "copying the title"),
    Kind(SEVERE, "pads or does not end"): ("length", "truncated"),
    Kind(SEVERE, "has little to say"): ("degenerate", "entropy of words (nats)"),
    Kind(SEVERE, "pleases the reward model, not the task"): ("gold minus proxy win rate",),
    Kind(NOTICE, "gains by length"): ("gain explained by length",),
    Kind(NOTICE, "has another style"): (
        "refusal",
        "praise or agreement",
        "format marks per 100 words",
        "hedges per 100 words",
    ),
}


def kind_of(name: str) -> Kind:
    """The kind of a diagnostic; one that has none, as those of probes, is a notice."""
    return next((kind for kind, names in KINDS.items() if name in names), Kind(NOTICE, name))


def rank(name: str) -> int:
    """Place of a diagnostic's kind, severe ones first."""
    return list(KINDS).index(kind) if (kind := kind_of(name)) in KINDS else len(KINDS)
