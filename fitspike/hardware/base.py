"""The protocol of a hardware target and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fitspike.rng import Stream
from fitspike.types import Params

if TYPE_CHECKING:
    from fitspike.models.base import Model
    from fitspike.recording.recording import Recording


@dataclass(frozen=True)
class HardwareConstraints:
    """Limits of a target; None means no limit."""

    n_neurons: int | None = None
    fan_in: int | None = None
    weight_bits: int | None = None
    weight_range: tuple[float, float] | None = None
    dale_signs: bool = False
    dt_ms: float | None = None
    neuron_models: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class HardwareRun:
    """What a run on a target gave. `observables` are recorded quantities by name, (n_trials, n_bins, n_neurons)."""

    target: str
    spikes: Recording
    wall_s: float
    observables: Mapping[str, np.ndarray] = field(default_factory=dict)


@runtime_checkable
class HardwareTarget(Protocol):
    """A place where a fitted network can run."""

    name: str

    def constraints(self) -> HardwareConstraints:
        """Return the target's limits."""
        ...

    def compile(self, model: Model, params: Params) -> Any:
        """Return the program for the target; HardwareLimitError lists every limit broken."""
        ...

    def run(self, program: Any, signals: Mapping[str, np.ndarray], n_trials: int, n_bins: int, rng: Stream) -> HardwareRun:
        """Return spikes and observables of a run; signals are (n_bins, n_channels) or (n_trials, n_bins, n_channels)."""
        ...
