"""How much memory and time a fit will need, said before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitspike.config import RunConfig
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

SOLVER_PASSES = (10, 50)
"""Passes over the data that a solver usually takes."""


@dataclass(frozen=True)
class Estimate:
    """memory_gb: peak. pass_s: one likelihood and gradient pass over the training data by the solver, or one step of the learning rule."""

    memory_gb: float
    n_params: int
    pass_s: float
    max_steps: int | None

    def describe(self) -> str:
        """Return the estimate as a sentence."""
        size = f"{self.n_params:,} parameters, about {max(self.memory_gb, 0.1):.1f} GB of memory"
        if self.max_steps is None:
            few, many = (_duration(n * self.pass_s) for n in SOLVER_PASSES)
            return f"{size}; a pass over the training data takes about {_duration(self.pass_s)}, a fit usually {few} to {many}"
        step, total = _duration(self.pass_s), _duration(self.max_steps * self.pass_s)
        return f"{size}; a step takes about {step}, the {self.max_steps} steps allowed {total}"


def estimate(prepared: Prepared, config: RunConfig) -> Estimate:
    """Return the estimate of a fit: memory from the sizes of data and parameters, time from the likelihood of a short stretch of data.

    Where a loss needs them, freely simulated trials of one step are timed as well.
    """
    n_params = sum(int(np.prod(spec.shape)) for spec in prepared.specs.values())
    data = sum(binned_bytes(one) for one in (prepared.train, prepared.test) if one is not None)
    # The recording's own columns, the bins of training and test part, and the folds that choose settings.
    memory = _BASE_GB + (3 * data + n_params * 8 * _STATE_COPIES + CHUNK_VALUES * 8 * 4) / 1e9
    train = prepared.train
    longest = int(np.max(train.bins_per_trial))
    if prepared.components.uses_solver:
        n_bins = int(np.clip(_PROBE_VALUES // train.n_neurons, 1, longest))
        n_trials = min(train.n_trials, max(1, _PROBE_VALUES // (train.n_neurons * n_bins)))
        scale = train.n_bins_total / (n_trials * n_bins)
        return Estimate(memory, n_params, scale * _probe_seconds(prepared, n_trials, n_bins), None)
    from fitspike.learning.trainer import DEFAULT_MAX_BINS, DEFAULT_MAX_STEPS

    n_bins = min(longest, config.batch.n_bins or DEFAULT_MAX_BINS)
    n_trials = min(train.n_trials, config.batch.n_trials)
    needs_free = any("rollout" in loss.needs for loss, _ in prepared.components.losses.values())
    n_free_trials = (config.batch.n_free_trials or config.batch.n_trials) if needs_free else 0
    seconds = _probe_seconds(prepared, n_trials, n_bins, n_free_trials)
    return Estimate(memory, n_params, seconds, config.stop.max_steps or DEFAULT_MAX_STEPS)


def binned_bytes(binned: BinnedSpikes) -> int:
    """Return the bytes of the events, the row pointer and the resampled signals of binned spikes."""
    events = binned.event_neuron.nbytes + (0 if binned.event_count is None else binned.event_count.nbytes)
    channels = sum(signal.n_channels for signal in binned.source_signals.values())
    return events + binned.row_pointer.nbytes + 4 * channels * binned.n_bins_total


def _probe_seconds(prepared: Prepared, n_trials: int, n_bins: int, n_free_trials: int = 0) -> float:
    """Return the time of likelihood, free trials and gradient of the first bins of some trials, from the second run: the first compiles."""
    import torch

    from fitspike.learning.free_runs import run_free

    model, stream = prepared.components.model, Stream(0, "estimate")
    chunk = prepared.train.chunk(np.arange(n_trials), 0, n_bins)
    params = to_tensors(prepared.init)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with torch.no_grad():
            model.log_likelihood(params, chunk, None, stream)
            if n_free_trials:
                run_free(model, params, chunk, None, stream, n_trials=n_free_trials, has_repeats=prepared.train.info().has_repeats)
        seconds = time.perf_counter() - began
    return 3 * seconds  # a gradient costs about twice the value


def _duration(seconds: float) -> str:
    for limit, unit, factor in ((120.0, "s", 1.0), (7200.0, "min", 60.0)):
        if seconds < limit:
            return f"{_two_digits(seconds / factor)} {unit}"
    return f"{_two_digits(seconds / 3600)} h"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
