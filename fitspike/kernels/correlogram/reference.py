"""Cross-correlograms, the readable form: one product of shifted counts per lag. This file is the specification."""

from __future__ import annotations

import numpy as np


def correlogram(
    row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray, spans: np.ndarray, n_neurons: int, n_lags: int, pairs: str
) -> np.ndarray:
    """Return coincidences [post, pre, lag] or, for pairs="self", (n_neurons, n_lags + 1); see the function of the package."""
    equation = "ti,tj->ij" if pairs == "all" else "ti,ti->i"
    shape = (n_neurons, n_neurons) if pairs == "all" else (n_neurons,)
    result = np.zeros((n_lags + 1, *shape), np.int64)
    for start, stop in spans:
        counts = np.zeros((stop - start, n_neurons), np.int64)
        bins = np.repeat(np.arange(stop - start), np.diff(row_pointer[start : stop + 1]))
        events = slice(row_pointer[start], row_pointer[stop])
        counts[bins, event_neuron[events]] = event_count[events] if len(event_count) else 1
        for lag in range(min(n_lags, len(counts) - 1) + 1):
            result[lag] += np.einsum(equation, counts[lag:], counts[: len(counts) - lag])
    return np.moveaxis(result, 0, -1)
