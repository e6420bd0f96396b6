"""Auto- and cross-correlograms of a binned recording, straight from events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import DenseTooLargeError
from fitspike.kernels.correlogram import correlogram

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes


def _spans(binned: BinnedSpikes) -> np.ndarray:
    """Return the scored bins of each trial as (first, past the last), (n_trials, 2)."""
    offset = np.asarray(binned.trial_offset)
    return np.stack([offset[:-1] + np.asarray(binned.warmup_bins), offset[1:]], axis=1)


def _n_bin_pairs(binned: BinnedSpikes, n_lags: int) -> np.ndarray:
    """Return how many pairs of scored bins of one trial lie each lag apart, (n_lags + 1,)."""
    scored = np.asarray(binned.bins_per_trial) - np.asarray(binned.warmup_bins)
    return np.maximum(scored[:, None] - np.arange(n_lags + 1), 0).sum(0)


def coincidences(binned: BinnedSpikes, n_lags: int, *, max_gb: float = 1.0, backend: str = "auto") -> np.ndarray:
    """Return coincidence counts [post, pre, lag], (n_neurons, n_neurons, n_lags + 1) int64; see `kernels.correlogram`.

    Raises
    ------
    DenseTooLargeError
        If the result would need more than `max_gb`.
    """
    needed = binned.n_neurons**2 * (n_lags + 1) * 8 / 1e9
    if needed > max_gb:
        raise DenseTooLargeError(
            f"correlograms of all pairs would need {needed:.1f} GB ({binned.n_neurons}^2 pairs x {n_lags + 1} lags); the limit is "
            f"{max_gb:.1f} GB. Select neurons, take fewer lags or wider bins, or raise `max_gb`."
        )
    return correlogram(
        binned.row_pointer, binned.event_neuron, binned.event_count, _spans(binned), binned.n_neurons, n_lags, backend=backend
    )


def cross_correlogram_hz(binned: BinnedSpikes, n_lags: int, *, max_gb: float = 1.0, backend: str = "auto") -> np.ndarray:
    """Return the rate of `post` d bins after a spike of `pre`, [post, pre, lag], (n_neurons, n_neurons, n_lags + 1), in Hz.

    E[n_post(b) n_pre(b - d)] / (E[n_pre] dt) over pairs of bins within a trial; independent trains give the rate of `post` at every lag.
    NaN where `pre` is silent.
    """
    counts = coincidences(binned, n_lags, max_gb=max_gb, backend=backend).astype(np.float64)
    return counts / _expected_seconds(binned, n_lags)[None, :, :]


def autocorrelogram_hz(binned: BinnedSpikes, n_lags: int, *, backend: str = "auto") -> np.ndarray:
    """Return each neuron's rate d bins after its own spike, (n_neurons, n_lags + 1), in Hz; lag 0 holds the squared counts."""
    counts = correlogram(
        binned.row_pointer, binned.event_neuron, binned.event_count, _spans(binned), binned.n_neurons, n_lags, pairs="self", backend=backend
    )
    return counts / _expected_seconds(binned, n_lags)


def _expected_seconds(binned: BinnedSpikes, n_lags: int) -> np.ndarray:
    """Return spikes of `pre` times the bin width that have a partner bin d later, (n_neurons, n_lags + 1), in s; NaN for silent neurons."""
    seconds = binned.mean_count()[:, None] * _n_bin_pairs(binned, n_lags)[None, :] * (binned.dt_ms / 1000)
    return np.where(seconds > 0, seconds, np.nan)
