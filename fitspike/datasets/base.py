"""The protocol of a dataset: a named recording that can be made or fetched, with its card and, where known, its truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording


@dataclass(frozen=True)
class DataCard:
    """What a dataset is.

    items : names for `get NAME/ITEM`; `summaries` says more of some of them
    parameters : settings of a generator with their values
    settings : recommended settings of a fit, per item ("" for all)
    """

    name: str
    summary: str
    licence: str
    citation: str
    origin: str = ""
    is_synthetic: bool = False
    items: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GroundTruth:
    """What generated a synthetic recording: `weight` [post, pre], `delay_ms` [post, pre], and anything else by name."""

    weight: np.ndarray | None = None
    delay_ms: np.ndarray | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Dataset(Protocol):
    """A frozen settings object whose fields are the generator's parameters (or that has none, for recorded data)."""

    name: str

    def describe(self) -> DataCard:
        """Return the card."""
        ...

    def load(self, cache: Path, *, item: str | None = None, seed: int = 0) -> Recording:
        """Return the recording: generated from the seed, or read from the fetched file."""
        ...

    def truth(self, *, seed: int = 0) -> GroundTruth | None:
        """Return the truth behind `load(seed=seed)`, or None for recorded data."""
        ...
