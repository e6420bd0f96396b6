"""Spike counts of every neuron filtered with a lag basis, dense, for as many bins as can be held."""

from __future__ import annotations

import numpy as np

from fitspike.kernels.dispatch import choose
from fitspike.kernels.point_process import Events


def filtered_counts(
    events: Events,
    bins: range | np.ndarray,
    basis: np.ndarray,
    *,
    decay: np.ndarray | None = None,
    dtype: str = "float64",
    backend: str = "auto",
) -> np.ndarray:
    """Return each neuron's counts filtered with each basis function, (n_bins, n_neurons, n_basis).

    x[t, j, b] = sum over lags l = 1, 2, ... of basis[b, l - 1] * count_j(t - l), within the trial of t.

    Parameters
    ----------
    bins : range, or ndarray of int, (n_bins,), in any order
    basis : ndarray, (n_basis, n_lags); with `decay`, (n_basis,): what one spike adds at lag 1
    decay : ndarray, (n_basis,), optional
        Factor per bin of exponential functions, which never end.
    """
    run = choose("filtered_counts", backend, device="cpu", dtype=dtype).load()
    bins = bins if isinstance(bins, range) else np.ascontiguousarray(bins, dtype=np.int64)
    return run(events, bins, np.asarray(basis, dtype=dtype), None if decay is None else np.asarray(decay, dtype=np.float64), dtype)
