"""Filtered counts as a sum over lags of shifted dense counts."""

from __future__ import annotations

import numpy as np

from fitspike.kernels.point_process import Events


def filtered_counts(events: Events, bins: range | np.ndarray, basis: np.ndarray, decay: np.ndarray | None, dtype: str) -> np.ndarray:
    """Return filtered counts; see `fitspike.kernels.filtered_counts.filtered_counts`."""
    counts = np.zeros((events.n_bins, events.n_neurons), dtype=dtype)
    event_bin = np.repeat(np.arange(events.n_bins), np.diff(events.row_pointer))
    counts[event_bin, events.event_neuron] = 1.0 if events.event_count is None else events.event_count
    result = np.zeros((events.n_bins, events.n_neurons, len(basis)), dtype=dtype)
    for start, stop in zip(events.trial_edge[:-1], events.trial_edge[1:], strict=True):
        by_lag = basis if decay is None else basis[:, None] * decay[:, None] ** np.arange(max(stop - start, 1))
        for lag in range(1, min(by_lag.shape[1], stop - start - 1) + 1):
            result[start + lag : stop] += counts[start : stop - lag, :, None] * by_lag[:, lag - 1]
    return result[np.asarray(bins, dtype=np.int64)]
