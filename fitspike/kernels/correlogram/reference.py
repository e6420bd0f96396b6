"""Cross-correlograms, the readable form: one product of shifted counts per lag. This file is the specification."""

from __future__ import annotations

import numpy as np


def all_pairs(
    row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray, spans: np.ndarray, n_neurons: int, n_lags: int
) -> np.ndarray:
    """Return coincidences [post, pre, lag], (n_neurons, n_neurons, n_lags + 1) int64; see the package's `correlogram`."""
    result = np.zeros((n_neurons, n_neurons, n_lags + 1), np.int64)
    for start, stop in spans:
        counts = _dense(row_pointer, event_neuron, event_count, start, stop, n_neurons)
        for lag in range(min(n_lags, len(counts) - 1) + 1):
            result[:, :, lag] += counts[lag:].T @ counts[: len(counts) - lag]
    return result


def same_neuron(
    row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray, spans: np.ndarray, n_neurons: int, n_lags: int
) -> np.ndarray:
    """Return coincidences of each neuron with itself, (n_neurons, n_lags + 1) int64: the diagonal of `all_pairs`."""
    result = np.zeros((n_neurons, n_lags + 1), np.int64)
    for start, stop in spans:
        counts = _dense(row_pointer, event_neuron, event_count, start, stop, n_neurons)
        for lag in range(min(n_lags, len(counts) - 1) + 1):
            result[:, lag] += (counts[lag:] * counts[: len(counts) - lag]).sum(0)
    return result


def _dense(row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray, start: int, stop: int, n_neurons: int) -> np.ndarray:
    """Return the counts of bins start .. stop, (stop - start, n_neurons) int64."""
    counts = np.zeros((stop - start, n_neurons), np.int64)
    bins = np.repeat(np.arange(stop - start), np.diff(row_pointer[start : stop + 1]))
    events = slice(row_pointer[start], row_pointer[stop])
    np.add.at(counts, (bins, event_neuron[events]), event_count[events] if len(event_count) else 1)
    return counts
