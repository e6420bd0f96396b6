"""Cross-correlograms compiled: every event meets the events of the next n_lags bins, nothing dense but the result."""

from __future__ import annotations

import numba
import numpy as np

from fitspike.kernels.compiling import cached


@cached(numba.njit, nogil=True)
def _add_all_pairs(row_pointer, event_neuron, event_count, spans, n_lags, result):
    weighted = len(event_count) > 0
    for k in range(len(spans)):
        start, stop = spans[k]
        for b in range(start, stop):
            for e in range(row_pointer[b], row_pointer[b + 1]):
                pre, n_pre = event_neuron[e], np.int64(event_count[e]) if weighted else np.int64(1)
                for later in range(b, min(b + n_lags + 1, stop)):
                    for f in range(row_pointer[later], row_pointer[later + 1]):
                        n_post = np.int64(event_count[f]) if weighted else np.int64(1)
                        result[event_neuron[f], pre, later - b] += n_pre * n_post


@cached(numba.njit, nogil=True)
def _add_same_neuron(row_pointer, event_neuron, event_count, spans, n_neurons, n_lags, result):
    # The last n_lags + 1 bins of each neuron that hold a spike, in a ring: an event meets only its own neuron's past.
    weighted = len(event_count) > 0
    size = n_lags + 1
    ring_bin = np.empty((n_neurons, size), np.int64)
    ring_count = np.empty((n_neurons, size), np.int64)
    n_kept = np.zeros(n_neurons, np.int64)
    for k in range(len(spans)):
        start, stop = spans[k]
        n_kept[:] = 0
        for b in range(start, stop):
            for e in range(row_pointer[b], row_pointer[b + 1]):
                neuron, count = event_neuron[e], np.int64(event_count[e]) if weighted else np.int64(1)
                slot = n_kept[neuron] % size
                ring_bin[neuron, slot] = b
                ring_count[neuron, slot] = count
                n_kept[neuron] += 1
                for back in range(min(n_kept[neuron], size)):
                    at = (n_kept[neuron] - 1 - back) % size
                    lag = b - ring_bin[neuron, at]
                    if lag > n_lags:
                        break
                    result[neuron, lag] += count * ring_count[neuron, at]


def correlogram(
    row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray, spans: np.ndarray, n_neurons: int, n_lags: int, pairs: str
) -> np.ndarray:
    """Return coincidences [post, pre, lag] or, for pairs="self", (n_neurons, n_lags + 1); see the function of the package."""
    if pairs == "all":
        result = np.zeros((n_neurons, n_neurons, n_lags + 1), np.int64)
        _add_all_pairs(row_pointer, event_neuron, event_count, spans, n_lags, result)
    else:
        result = np.zeros((n_neurons, n_lags + 1), np.int64)
        _add_same_neuron(row_pointer, event_neuron, event_count, spans, n_neurons, n_lags, result)
    return result
