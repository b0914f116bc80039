"""From samples to win rates that can be defended.

`from evaluation import Pipeline, evaluate, judge, metrics` is the Python road: see `evaluation.api`.
"""

__all__ = ["Pipeline", "evaluate", "judge", "metrics"]


def __getattr__(name: str):
    if name in __all__:
        from evaluation import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
