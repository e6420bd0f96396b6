"""Dense counts with numpy indexing: the specification."""

from __future__ import annotations

import numpy as np


def densify(
    row_pointer: np.ndarray, event_neuron: np.ndarray, event_count: np.ndarray | None, n_neurons: int, dtype: str = "float32"
) -> np.ndarray:
    """Return counts (n_trials, n_bins, n_neurons); see `fitspike.kernels.densify.densify`."""
    n_trials, n_bins = row_pointer.shape[0], row_pointer.shape[1] - 1
    dense = np.zeros((n_trials, n_bins, n_neurons), dtype=dtype)
    for k, rows in enumerate(row_pointer):
        events = slice(int(rows[0]), int(rows[-1]))
        bins = np.repeat(np.arange(n_bins), np.diff(rows))
        dense[k, bins, event_neuron[events]] = 1 if event_count is None else event_count[events]
    return dense
