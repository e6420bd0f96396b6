"""Filtered counts by adding the basis at every spike, or at single bins over the spikes before them."""

from __future__ import annotations

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.point_process import Events

_FADED = 1e-18  # an exponential is followed back until it has come down to this, past the precision of any sum


def filtered_counts(events: Events, bins: range | np.ndarray, basis: np.ndarray, decay: np.ndarray | None, dtype: str) -> np.ndarray:
    """Return filtered counts; see `fitspike.kernels.filtered_counts.filtered_counts`."""
    n_bins, n_basis = len(bins), len(basis)
    result = np.zeros((n_bins, events.n_neurons, n_basis), dtype=dtype)
    count = np.zeros(0, dtype=np.uint16) if events.event_count is None else events.event_count
    common = (events.row_pointer, events.event_neuron, count, events.trial_edge)
    reach = basis.shape[1] if decay is None else int(np.ceil(np.log(_FADED) / np.log(decay.max()))) if 0 < decay.max() < 1 else 1
    if decay is None:
        by_lag = np.ascontiguousarray(basis.T)
    elif not isinstance(bins, range):
        by_lag = np.ascontiguousarray((basis * decay ** np.arange(reach)[:, None]).astype(dtype))
    if not isinstance(bins, range):
        _at_bins(*common, bins, by_lag, result)
    elif decay is None:
        _finite(*common, bins.start, bins.stop, by_lag, result)
    else:
        _exponential(*common, bins.start, bins.stop, basis.astype(np.float64), decay, reach, result)
    return result


@cached(numba.njit, nogil=True)
def _at_bins(row_pointer, event_neuron, event_count, trial_edge, bins, by_lag, result):
    n_lags, n_basis = by_lag.shape
    for row in range(bins.size):
        t = bins[row]
        start = trial_edge[np.searchsorted(trial_edge, t, side="right") - 1]
        for s in range(max(start, t - n_lags), t):
            for event in range(row_pointer[s], row_pointer[s + 1]):
                neuron = event_neuron[event]
                count = event_count[event] if event_count.size else 1
                for b in range(n_basis):
                    result[row, neuron, b] += count * by_lag[t - s - 1, b]


@cached(numba.njit, nogil=True)
def _finite(row_pointer, event_neuron, event_count, trial_edge, first, stop, by_lag, result):
    n_lags, n_basis = by_lag.shape
    for trial in range(trial_edge.size - 1):
        start, end = trial_edge[trial], min(trial_edge[trial + 1], stop)
        for s in range(max(start, first - n_lags), end - 1):
            begin = max(s + 1, first)
            for event in range(row_pointer[s], row_pointer[s + 1]):
                neuron = event_neuron[event]
                count = event_count[event] if event_count.size else 1
                for t in range(begin, min(s + 1 + n_lags, end)):
                    for b in range(n_basis):
                        result[t - first, neuron, b] += count * by_lag[t - s - 1, b]


@cached(numba.njit, nogil=True)
def _exponential(row_pointer, event_neuron, event_count, trial_edge, first, stop, gain, decay, reach, result):
    n_neurons, n_basis = result.shape[1], decay.size
    for trial in range(trial_edge.size - 1):
        start, end = trial_edge[trial], min(trial_edge[trial + 1], stop)
        if end <= first or start >= stop:
            continue
        trace = np.zeros((n_neurons, n_basis))
        for t in range(max(start, first - reach), end):
            if t >= first:
                for j in range(n_neurons):
                    for b in range(n_basis):
                        result[t - first, j, b] = trace[j, b]
            for j in range(n_neurons):
                for b in range(n_basis):
                    trace[j, b] *= decay[b]
                    if abs(trace[j, b]) < _FADED * abs(gain[b]):  # denormal numbers slow products down a hundred times
                        trace[j, b] = 0.0
            for event in range(row_pointer[t], row_pointer[t + 1]):
                count = event_count[event] if event_count.size else 1
                for b in range(n_basis):
                    trace[event_neuron[event], b] += count * gain[b]
