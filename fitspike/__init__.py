"""Fit spiking models to recorded spike trains."""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"

_LAZY = {
    "load": "fitspike.datasets.loading",
    "fit": "fitspike.fitting",
    "simulate": "fitspike.results.result",
    "score": "fitspike.results.result",
    "get": "fitspike.datasets.loading",
    "Recording": "fitspike.recording.recording",
    "BinnedSpikes": "fitspike.recording.binned",
    "FitResult": "fitspike.results.result",
}

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fitspike' has no attribute {name!r}")
    value = getattr(_import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
