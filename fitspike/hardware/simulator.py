"""The default hardware target: this machine, which runs a model as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fitspike.errors import InvalidInputError
from fitspike.hardware.base import HardwareConstraints, HardwareRun
from fitspike.models.base import n_uniforms
from fitspike.recording.binned import SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.types import Params

if TYPE_CHECKING:
    from fitspike.models.base import Model

_CHUNK_BINS = 1000


@dataclass(frozen=True, eq=False)
class SimulatorProgram:
    """A model with its parameters in double precision, ready to run."""

    model: Model
    params: Params
    n_neurons: int
    dt_ms: float


@dataclass(frozen=True)
class Simulator:
    """This machine as a target: no limits, no quantisation, double precision. n_neurons counts the recorded neurons."""

    name: ClassVar[str] = "simulator"
    n_neurons: int = 1
    dt_ms: float = 1.0

    def constraints(self) -> HardwareConstraints:
        """Return that there are no limits."""
        return HardwareConstraints()

    def compile(self, model: Model, params: Params) -> SimulatorProgram:
        """Return the model and its parameters, unchanged but for double precision."""
        if self.n_neurons < 1:
            raise InvalidInputError(f"n_neurons={self.n_neurons} must be at least 1.")
        return SimulatorProgram(model, {name: value.detach().double() for name, value in params.items()}, self.n_neurons, self.dt_ms)

    @torch.no_grad()
    def run(self, program: SimulatorProgram, signals: Mapping[str, np.ndarray], n_trials: int, n_bins: int, rng: Stream) -> HardwareRun:
        """Return the spikes of a free run, `n_trials` of `n_bins` bins; the stream's counters decide them, whatever the chunks."""
        started_s = time.monotonic()
        n_units = n_uniforms(program.model, program.n_neurons)
        full = {name: np.broadcast_to(values, (n_trials, n_bins, np.shape(values)[-1])) for name, values in signals.items()}
        counts = np.zeros((n_trials, n_bins, program.n_neurons), dtype=np.int32)
        carry = None
        for first in range(0, n_bins, _CHUNK_BINS):
            stop = min(first + _CHUNK_BINS, n_bins)
            context = SpikeChunk.empty(
                n_trials,
                stop - first,
                program.n_neurons,
                program.dt_ms,
                signals={name: values[:, first:stop] for name, values in full.items()},
                start_s=np.full(n_trials, first * program.dt_ms * 1e-3),
                first_bin=first,
            )
            uniforms = torch.as_tensor(rng.uniforms(n_trials, range(first, stop), n_units))
            outcome = program.model.rollout(program.params, context, uniforms=uniforms, carry=carry)
            counts[:, first:stop] = outcome.spikes.numpy()
            carry = outcome.carry
        spikes = Recording.from_counts(counts, dt_ms=program.dt_ms)
        return HardwareRun(self.name, spikes, time.monotonic() - started_s)
