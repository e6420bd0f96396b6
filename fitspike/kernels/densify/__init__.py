"""Events of a chunk to spike counts (n_trials, n_bins, n_neurons)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitspike.kernels.dispatch import choose

if TYPE_CHECKING:
    import numpy as np


def densify(
    row_pointer: np.ndarray,
    event_neuron: np.ndarray,
    event_count: np.ndarray | None,
    n_neurons: int,
    *,
    dtype: str = "float32",
    backend: str = "auto",
) -> np.ndarray:
    """Return dense[k, b, i], the count of the event of neuron i among events row_pointer[k, b] : row_pointer[k, b + 1], else 0.

    Parameters
    ----------
    row_pointer : ndarray of int64, (n_trials, n_bins + 1)
    event_neuron : ndarray of unsigned int, (n_events,)
        A neuron occurs at most once in a bin.
    event_count : ndarray of int, (n_events,), optional
        Default: all ones.
    n_neurons : int
    dtype : numpy type of the result
    backend : "auto", "numba" or "reference"
        "auto" takes numba from 2**20 values on, where it pays for its start.

    Returns
    -------
    ndarray, (n_trials, n_bins, n_neurons), spikes
    """
    n_values = row_pointer.shape[0] * (row_pointer.shape[1] - 1) * n_neurons
    if backend == "auto" and n_values < 1 << 20:
        backend = "reference"
    function = choose("densify", backend, n_values=n_values).load()
    return function(row_pointer, event_neuron, event_count, n_neurons, dtype)
