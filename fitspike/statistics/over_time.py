"""Rates over time straight from events: population rate and its spectrum, PSTH with its split-half reliability, raster excerpts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.statistics.from_events import event_blocks, scored_duration_s, window_bins
from fitspike.units import NS_PER_S

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

MAX_PSTH_VALUES = 1 << 23
"""Largest PSTH (conditions x time bins x neurons) that is made without asking: 64 MB."""


def population_rate_hz(binned: BinnedSpikes, window_ms: float) -> list[np.ndarray]:
    """Return for each trial the mean rate over neurons in consecutive whole windows of its scored part, each (n_windows,), in Hz."""
    width_ns = window_bins(binned, window_ms) * binned.dt_ns
    scored_bins = np.asarray(binned.bins_per_trial) - np.asarray(binned.warmup_bins)
    n_windows = scored_bins * binned.dt_ns // width_ns
    offset = np.concatenate([[0], np.cumsum(n_windows)])
    counts = np.zeros(offset[-1])
    warmup_ns = np.asarray(binned.warmup_bins) * binned.dt_ns
    for block in event_blocks(binned):
        window = (block.time_ns - warmup_ns[block.trial]) // width_ns
        inside = window < n_windows[block.trial]
        counts += np.bincount((offset[block.trial] + window)[inside], weights=block.count[inside], minlength=len(counts))
    rate = counts / (binned.n_neurons * width_ns / NS_PER_S)
    return np.split(rate, offset[1:-1])


def power_spectrum(trains: list[np.ndarray], window_ms: float, segment_s: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and the mean power spectral density of rate traces (Welch's method, Hann window, half overlap, mean removed).

    Parameters
    ----------
    trains : list of ndarray, (n_windows,), Hz
        Traces shorter than a segment are left out; where all are, the segment is the median trace.

    Returns
    -------
    frequency_hz : ndarray, (n_frequencies,), without 0
    power : ndarray, (n_frequencies,), Hz^2 / Hz
    """
    from scipy.signal import welch

    lengths = np.array([len(train) for train in trains if len(train)])
    if not len(lengths) or lengths.max() < 4:
        return np.zeros(0), np.zeros(0)
    n_segment = min(round(segment_s * 1000 / window_ms), int(np.median(lengths)))
    n_segment = max(4, n_segment)
    power, weight = 0.0, 0
    for train in trains:
        if len(train) < n_segment:
            continue
        n_here = 1 + (len(train) - n_segment) // (n_segment - n_segment // 2)
        frequency, density = welch(train, fs=1000 / window_ms, nperseg=n_segment, detrend="constant")
        power, weight = power + n_here * density, weight + n_here
    return frequency[1:], (power / weight)[1:]


@dataclass(frozen=True)
class PSTH:
    """Mean rate over repeats. rate_hz (n_conditions, n_times, n_neurons); time_ms (n_times,): middle of each window since trial start.

    `conditions` (n_conditions,) are names, "" for trials without one; `n_trials` (n_conditions,). `split_half` (n_neurons,) is the Pearson
    correlation, over conditions and times, of the PSTHs of the even and the odd repeats; NaN where a half does not vary.
    """

    rate_hz: np.ndarray
    time_ms: np.ndarray
    conditions: np.ndarray
    n_trials: np.ndarray
    split_half: np.ndarray

    @property
    def ceiling(self) -> np.ndarray:
        """Return the correlation a perfect prediction would have with this PSTH, (n_neurons,).

        sqrt(2 r / (1 + r)) with the split-half correlation r: the Spearman-Brown reliability of the mean over all repeats, whose root is
        the correlation with the noiseless mean (Hsu, Borst, Theunissen 2004). 0 where r <= 0.
        """
        r = np.maximum(self.split_half, 0)
        return np.sqrt(2 * r / (1 + r))


def psth(binned: BinnedSpikes, window_ms: float) -> PSTH | None:
    """Return the PSTH of the conditions that repeat (`BinnedSpikes.repeat_groups`), over the length their trials share, or None.

    Time runs from the trial's start; windows that lie in a warm-up of any of the trials are left out.
    """
    group = binned.repeat_groups
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups == 0:
        return None
    width = window_bins(binned, window_ms)
    used = group >= 0
    first_window = -(-int(np.max(np.asarray(binned.warmup_bins)[used])) // width)
    n_windows = int(np.min(np.asarray(binned.bins_per_trial)[used])) // width - first_window
    if n_windows < 1:
        return None
    n_values = n_groups * n_windows * binned.n_neurons
    if n_values > MAX_PSTH_VALUES:
        raise InvalidInputError(
            f"a PSTH of {n_groups} conditions x {n_windows} windows x {binned.n_neurons} neurons is too large ({n_values} values). "
            f"Use windows longer than {window_ms:g} ms."
        )
    rank = np.zeros(binned.n_trials, np.int64)  # number of the trial among the repeats of its condition
    n_trials = np.zeros((n_groups, 2))
    for g in range(n_groups):
        members = np.flatnonzero(group == g)
        rank[members] = np.arange(len(members))
        n_trials[g] = (len(members) + 1) // 2, len(members) // 2
    sums = np.zeros(2 * n_values)
    for block in event_blocks(binned):
        window = block.time_ns // (width * binned.dt_ns) - first_window
        keep = (group[block.trial] >= 0) & (window >= 0) & (window < n_windows)
        trial = block.trial[keep]
        cell = (((rank[trial] % 2) * n_groups + group[trial]) * n_windows + window[keep]) * binned.n_neurons + block.neuron[keep]
        sums += np.bincount(cell, weights=block.count[keep], minlength=len(sums))
    halves = sums.reshape(2, n_groups, n_windows, binned.n_neurons) / (window_ms / 1000)
    even, odd = (halves[h] / np.maximum(n_trials[:, h], 1)[:, None, None] for h in (0, 1))
    conditions = np.array([_condition_name(binned, group, g) for g in range(n_groups)])
    return PSTH(
        rate_hz=halves.sum(0) / n_trials.sum(1)[:, None, None],
        time_ms=(first_window + np.arange(n_windows) + 0.5) * window_ms,
        conditions=conditions,
        n_trials=n_trials.sum(1).astype(np.int64),
        split_half=column_correlation(even.reshape(-1, binned.n_neurons), odd.reshape(-1, binned.n_neurons)),
    )


def _condition_name(binned: BinnedSpikes, group: np.ndarray, number: int) -> str:
    index = int(np.asarray(binned.conditions)[np.flatnonzero(group == number)[0]])
    return str(binned.condition_names[index]) if index >= 0 else ""


def column_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of each column of x with that of y, both (n, n_columns); NaN where one of the two is constant."""
    x, y = x - x.mean(0), y - y.mean(0)
    scale = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.divide((x * y).sum(0), scale, out=np.full(x.shape[1], np.nan), where=scale > 0)


@dataclass(frozen=True)
class RasterExcerpt:
    """Spikes of a stretch of scored time, trials laid end to end from trial_start_s on, up to stop_s.

    time_s, neuron, count (n_events,): `count` spikes of one neuron in one bin are one event.
    """

    time_s: np.ndarray
    neuron: np.ndarray
    count: np.ndarray
    trial_start_s: np.ndarray
    stop_s: float


def raster_excerpt(binned: BinnedSpikes, duration_s: float, max_events: int = 200_000) -> RasterExcerpt:
    """Return the first `duration_s` of scored time, cut earlier if it holds more than `max_events`."""
    lengths = scored_duration_s(binned)
    start = np.concatenate([[0.0], np.cumsum(lengths)])
    warmup_ns = np.asarray(binned.warmup_bins) * binned.dt_ns
    times, neurons, counts, n_found = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for block in event_blocks(binned):
        time = start[block.trial] + (block.time_ns - warmup_ns[block.trial]) / NS_PER_S
        keep = np.flatnonzero(time < duration_s)[: max_events - n_found]
        times.append(time[keep])
        neurons.append(block.neuron[keep])
        counts.append(block.count[keep])
        n_found += len(keep)
        if len(keep) < len(time):
            break
    time = np.concatenate(times)
    was_cut = n_found >= max_events
    stop = float(time[-1]) if was_cut else float(min(duration_s, start[-1]))
    return RasterExcerpt(time, np.concatenate(neurons), np.concatenate(counts), start[:-1][start[:-1] < stop], stop)
