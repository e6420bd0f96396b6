"""Signals on the bins of the spikes: averaged inside a bin, or interpolated where samples are farther apart than bins."""

from __future__ import annotations

import numpy as np

from fitspike.recording.tables import Signal
from fitspike.units import NS_PER_S

_ON_GRID = 1e-6
"""Samples: a sample this close to a bin edge lies on it. float64 sampling positions of a day at 30 kHz are good to 1e-6."""
_BLOCK_SAMPLES = 1 << 20


def resample(signal: Signal, start_ns: int, dt_ns: int, first_bin: int, n_bins: int) -> np.ndarray:
    """Return a signal in the bins [start + b dt, start + (b + 1) dt), b = first_bin .. first_bin + n_bins - 1.

    With at least one sample per bin: the mean of the samples taken inside the bin (sample n is taken at start + n / rate). With fewer:
    linear interpolation between samples at the bin's centre. Bins before the first or after the last sample take the nearest one; how far
    that may reach is the business of `gap_in`.

    Returns
    -------
    ndarray, (n_bins, n_channels), float64
    """
    values = np.empty((n_bins, signal.n_channels))
    per_bin = dt_ns * signal.sampling_rate_hz / NS_PER_S
    block = max(1, int(_BLOCK_SAMPLES / max(1, signal.n_channels) / max(1.0, per_bin)))
    fill = _averaged if per_bin >= 1 - _ON_GRID else _interpolated
    for low in range(0, n_bins, block):
        high = min(low + block, n_bins)
        edges = start_ns + (first_bin + np.arange(low, high + 1)) * dt_ns
        values[low:high] = fill(signal, (edges - signal.start_ns) * (signal.sampling_rate_hz / NS_PER_S))
    return values


def gap_in(signal: Signal, start_ns: int, stop_ns: int, dt_ns: int) -> str | None:
    """Return in words why a signal cannot be had from start to stop (not covered, or not finite there), or None if it can.

    The outermost bin, or one sample where samples are farther apart, may stick out of the signal.
    """
    slack = max(dt_ns, NS_PER_S / signal.sampling_rate_hz) * (1 + 1e-9)
    if len(signal.values) == 0:
        return "it has no samples"
    if start_ns < signal.start_ns - slack or stop_ns > signal.stop_ns + slack:
        covered, needed = ((low / NS_PER_S, high / NS_PER_S) for low, high in ((signal.start_ns, signal.stop_ns), (start_ns, stop_ns)))
        return f"it covers {covered[0]:.6g} to {covered[1]:.6g} s, needed is {needed[0]:.6g} to {needed[1]:.6g} s"
    if signal.values.dtype.kind != "f":
        return None
    scale = signal.sampling_rate_hz / NS_PER_S
    first, last = (int(np.clip(np.ceil((at - signal.start_ns) * scale - _ON_GRID), 0, len(signal.values))) for at in (start_ns, stop_ns))
    if first == last:  # no sample inside: one of the two around it will do
        around = np.isfinite(signal.values[max(first - 1, 0) : first + 1]).all(axis=1)
        return None if around.any() else f"it is NaN or infinite around {start_ns / NS_PER_S:.6g} s"
    step = max(1, _BLOCK_SAMPLES // max(1, signal.n_channels))
    for low in range(first, last, step):
        is_bad = ~np.isfinite(signal.values[low : min(low + step, last)]).all(axis=1)
        if is_bad.any():
            at = (signal.start_ns + (low + int(np.argmax(is_bad))) / scale) / NS_PER_S
            return f"it is NaN or infinite at {at:.6g} s"
    return None


def _averaged(signal: Signal, position: np.ndarray) -> np.ndarray:
    """Return the means between consecutive positions (n_bins + 1,), in samples."""
    n_samples = len(signal.values)
    index = np.clip(np.ceil(position - _ON_GRID).astype(np.int64), 0, n_samples)
    low = int(index[0])
    block = np.asarray(signal.values[low : int(index[-1])], dtype=np.float64)
    number = np.diff(index)
    values = np.empty((len(number), signal.n_channels))
    if (held := np.flatnonzero(number)).size:  # a bin's samples reach to those of the next bin that holds any
        values[held] = np.add.reduceat(block, index[held] - low, axis=0) / number[held, None]
    if (bare := np.flatnonzero(number == 0)).size:  # outside the signal, or between two samples at nearly one sample per bin
        nearest = np.clip(np.rint((position[:-1] + position[1:])[bare] / 2).astype(np.int64), 0, n_samples - 1)
        values[bare] = signal.values[nearest]
    return values


def _interpolated(signal: Signal, position: np.ndarray) -> np.ndarray:
    """Return the signal interpolated half-way between consecutive positions (n_bins + 1,), in samples."""
    n_samples = len(signal.values)
    centre = np.clip((position[:-1] + position[1:]) / 2, 0, n_samples - 1)
    left = np.minimum(centre.astype(np.int64), max(n_samples - 2, 0))
    low = int(left[0])
    block = np.asarray(signal.values[low : int(left[-1]) + 2], dtype=np.float64)
    fraction = (centre - left)[:, None]
    before, after = block[left - low], block[np.minimum(left - low + 1, len(block) - 1)]
    # at the ends of a trial the next sample may be missing (between joined recordings it is NaN): then the other one alone
    before, after = np.where(np.isfinite(before), before, after), np.where(np.isfinite(after), after, before)
    return before * (1 - fraction) + after * fraction
