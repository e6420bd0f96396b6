"""Which of several competing populations is ahead, when the lead changes, and for how long it is kept."""

from __future__ import annotations

import numpy as np

from fitspike.errors import InvalidInputError


def winning_population(rate_hz: np.ndarray, dt_s: float, *, smoothing_s: float = 0.08, margin_hz: float = 6.0) -> np.ndarray:
    """Return the winner of each bin: the lead passes to the highest population once it is `margin_hz` above the one that leads.

    Rates are first averaged over a centred box of `smoothing_s`, cut off at the ends. The margin works as a hysteresis: of two
    populations, the winner changes when their difference crosses +margin or -margin.

    Parameters
    ----------
    rate_hz : (n_bins, n_populations), of the populations that compete (for instance the excitatory ones)

    Returns
    -------
    ndarray of int64, (n_bins,). -1 until one population is for the first time `margin_hz` above all others.

    Raises
    ------
    InvalidInputError
        With fewer than two populations, or a box or margin that is not positive.
    """
    rate_hz = np.asarray(rate_hz, dtype=np.float64)
    if rate_hz.ndim != 2 or rate_hz.shape[1] < 2:
        raise InvalidInputError(f"rate_hz has shape {rate_hz.shape}; expected (n_bins, n_populations) of at least two populations.")
    if not (smoothing_s > 0 and margin_hz > 0 and dt_s > 0):
        raise InvalidInputError(f"dt_s={dt_s}, smoothing_s={smoothing_s} and margin_hz={margin_hz} must be positive.")
    smooth = box_smoothed(rate_hz, max(1, round(smoothing_s / dt_s)))
    n_bins, highest = len(smooth), smooth.max(axis=1, initial=-np.inf)
    winner = np.full(n_bins, -1)
    ahead = np.sort(smooth, axis=1)[:, -1] - np.sort(smooth, axis=1)[:, -2] >= margin_hz
    at = int(np.argmax(ahead)) if ahead.any() else n_bins
    while at < n_bins:
        leader = int(np.argmax(smooth[at]))
        winner[at:] = leader
        is_beaten = highest[at:] - smooth[at:, leader] >= margin_hz
        at = at + int(np.argmax(is_beaten)) if is_beaten.any() else n_bins
    return winner


def box_smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean over a centred box of `width` bins, of those that exist at the ends; (n_bins, ...)."""
    n = len(values)
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0, dtype=np.float64)])
    first = np.maximum(np.arange(n) - width // 2, 0)
    last = np.minimum(np.arange(n) - width // 2 + width, n)
    return (total[last] - total[first]) / (last - first).reshape(-1, *[1] * (values.ndim - 1))


def switch_bins(winner: np.ndarray) -> np.ndarray:
    """Return the bins in which a new population takes the lead, (n_switches,); the first one to lead does not count as a switch."""
    return np.flatnonzero((winner[1:] != winner[:-1]) & (winner[:-1] >= 0)) + 1


def dwell_times_s(winner: np.ndarray, dt_s: float) -> np.ndarray:
    """Return how long each lead lasted that began and ended inside the recording, (n_switches - 1,) s."""
    return np.diff(switch_bins(winner)) * dt_s
