"""From a trained policy to a product and back: export, gateway, traffic, feedback."""

import importlib

_OWNERS = {"create_app": "gateway", "Limits": "limits", "Traffic": "traffic"}
__all__ = sorted(_OWNERS)


def __getattr__(name: str):
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"{__name__}.{_OWNERS[name]}"), name)
