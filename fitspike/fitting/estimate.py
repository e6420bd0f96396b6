"""How much memory and time a fit will need, said before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitspike.fitting.prepare import Prepared
from fitspike.params import to_tensors
from fitspike.results.simulation import CHUNK_VALUES
from fitspike.rng import Stream

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

_BASE_GB = 0.45
"""Memory of Python with numpy, scipy, torch and numba loaded [measured]."""

_STATE_COPIES = 20
"""Copies of the parameters that a quasi-Newton or Adam state holds, and room for gradients."""

_PROBE_VALUES = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """memory_gb: peak. pass_s: one likelihood pass over the training data. n_params: all parameters."""

    memory_gb: float
    pass_s: float
    n_params: int

    def describe(self) -> str:
        """Return the estimate as a sentence."""
        return (
            f"{self.n_params:,} parameters; about {max(self.memory_gb, 0.1):.1f} GB of memory; one pass over the training data takes about "
            f"{_duration(self.pass_s)}, a fit usually 20 to 60 passes ({_duration(20 * self.pass_s)} to {_duration(60 * self.pass_s)})"
        )


def estimate(prepared: Prepared) -> Estimate:
    """Return the estimate of a fit: memory from the sizes of data and parameters, time from the likelihood of a short stretch of data."""
    n_params = sum(int(np.prod(spec.shape)) for spec in prepared.specs.values())
    data = sum(binned_bytes(one) for one in (prepared.train, prepared.test) if one is not None)
    # The recording's own columns, the bins of training and test part, and the folds that choose settings.
    memory = 3 * data + n_params * 8 * _STATE_COPIES + CHUNK_VALUES * 8 * 4
    return Estimate(_BASE_GB + memory / 1e9, _pass_seconds(prepared), n_params)


def binned_bytes(binned: BinnedSpikes) -> int:
    """Return the bytes of the events, the row pointer and the resampled signals of binned spikes."""
    events = binned.event_neuron.nbytes + (0 if binned.event_count is None else binned.event_count.nbytes)
    channels = sum(signal.n_channels for signal in binned.source_signals.values())
    return events + binned.row_pointer.nbytes + 4 * channels * binned.n_bins_total


def _pass_seconds(prepared: Prepared) -> float:
    """Return the time of one likelihood pass over the training data, from the second of two passes over a short stretch of it."""
    import torch

    train = prepared.train
    longest = int(np.max(train.bins_per_trial))
    n_bins = int(np.clip(_PROBE_VALUES // train.n_neurons, 1, longest))
    trials = np.arange(min(train.n_trials, max(1, _PROBE_VALUES // (train.n_neurons * n_bins))))
    chunk = train.chunk(trials, 0, n_bins)
    params = to_tensors(prepared.init)
    seconds = 0.0
    for _ in range(2):  # the first one compiles
        began = time.perf_counter()
        with torch.no_grad():
            prepared.components.model.log_likelihood(params, chunk, None, Stream(0, "estimate"))
        seconds = time.perf_counter() - began
    # A gradient costs about twice the likelihood.
    return 3 * seconds * train.n_bins_total / (len(trials) * n_bins)


def _duration(seconds: float) -> str:
    for limit, unit, factor in ((120.0, "s", 1.0), (7200.0, "min", 60.0)):
        if seconds < limit:
            return f"{_two_digits(seconds / factor)} {unit}"
    return f"{_two_digits(seconds / 3600)} h"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
