"""Dense counts by one pass over the events."""

from __future__ import annotations

import numba
import numpy as np

from fitspike.kernels.compiling import cached


def densify(
    row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray | None, n_neurons: int, dtype: str = "float32"
) -> np.ndarray:
    """Return counts (n_trials, n_bins, n_neurons); see `fitspike.kernels.densify.densify`."""
    n_trials, n_bins = row_pointer.shape[0], row_pointer.shape[1] - 1
    dense = np.zeros((n_trials, n_bins, n_neurons), dtype=dtype)
    if event_count is None:
        _fill_ones(row_pointer, event_neuron, dense)
    else:
        _fill_counts(row_pointer, event_neuron, event_count, dense)
    return dense


@cached(numba.njit, nogil=True)
def _fill_ones(row_pointer: np.ndarray, event_neuron: np.ndarray, dense: np.ndarray) -> None:
    for k in range(dense.shape[0]):
        for b in range(dense.shape[1]):
            for event in range(row_pointer[k, b], row_pointer[k, b + 1]):
                dense[k, b, event_neuron[event]] = 1


@cached(numba.njit, nogil=True)
def _fill_counts(row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray, dense: np.ndarray) -> None:
    for k in range(dense.shape[0]):
        for b in range(dense.shape[1]):
            for event in range(row_pointer[k, b], row_pointer[k, b + 1]):
                dense[k, b, event_neuron[event]] = event_count[event]
