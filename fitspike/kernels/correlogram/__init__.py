"""Cross-correlograms of all pairs of neurons, or of each neuron with itself, straight from events."""

from __future__ import annotations

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.kernels.dispatch import choose


def correlogram(
    row_pointer: np.ndarray,
    event_neuron: np.ndarray,
    event_count: np.ndarray | None,
    spans: np.ndarray,
    n_neurons: int,
    n_lags: int,
    *,
    pairs: str = "all",
    backend: str = "auto",
) -> np.ndarray:
    """Return coincidence counts C[post, pre, d] = sum_b n_post(b) n_pre(b - d) for lags d = 0 .. n_lags.

    Both bins lie in the same span. Negative lags are C[post, pre, -d] = C[pre, post, d]. Lag 0 of a neuron with itself is the sum of its
    squared counts.

    Parameters
    ----------
    row_pointer : ndarray of int64, (n_bins_total + 1,)
        Events of bin b are row_pointer[b] : row_pointer[b + 1].
    event_neuron : ndarray of unsigned int, (n_events,)
    event_count : ndarray of int, (n_events,), optional
        Default: all ones.
    spans : ndarray of int64, (n_spans, 2)
        First and past-the-last bin of each stretch (the scored part of a trial).
    n_neurons, n_lags : int
    pairs : "all" or "self"
        "self": only the diagonal, result (n_neurons, n_lags + 1).
    backend : "auto", "numba" or "reference"

    Returns
    -------
    ndarray of int64, (n_neurons, n_neurons, n_lags + 1), or (n_neurons, n_lags + 1) for pairs="self"
    """
    if pairs not in ("all", "self"):
        raise InvalidInputError(f"pairs={pairs!r} is unknown. Use 'all' or 'self'.")
    if n_lags < 0:
        raise InvalidInputError(f"n_lags={n_lags} is negative. Give a number of bins from 0 up.")
    function = choose("correlogram", backend).load()
    count = np.zeros(0, np.int64) if event_count is None else np.ascontiguousarray(event_count)
    spans = np.ascontiguousarray(spans, dtype=np.int64).reshape(-1, 2)
    return function(np.ascontiguousarray(row_pointer), np.ascontiguousarray(event_neuron), count, spans, n_neurons, n_lags, pairs)
