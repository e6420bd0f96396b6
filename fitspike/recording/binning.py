"""Spikes of a recording into bins by integer arithmetic, in blocks, so that memory stays that of the events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import BinWidthError, Problems, RecordingError
from fitspike.recording.binned import BinnedSpikes
from fitspike.recording.resample import gap_in
from fitspike.units import NS_PER_MS, bin_width_ns

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

_BLOCK_SPIKES = 1 << 21
_MOST_BINS = 1_000_000_000
"""The index of the bins alone takes 8 bytes each; more than this many (12 days of 1 ms) is nearly always a wrong time unit."""


def bin_recording(recording: Recording, dt_ms: float | None = None) -> BinnedSpikes:
    """Return the spikes of a recording in bins; see `Recording.bin`."""
    width = width_ns(recording, dt_ms)
    trials = recording.trials
    n_bins = (trials.duration_ns // width).astype(np.int64)
    _check_number(n_bins, width)
    _check_signals(recording, n_bins, width)
    offset = np.concatenate([[0], np.cumsum(n_bins)]).astype(np.int64)
    keys, counts = [], []
    for key, count in _sorted_blocks(recording, width, n_bins, offset):
        keys.append(key)
        counts.append(count)
    pointer = np.zeros(int(offset[-1]) + 1, dtype=np.int64)
    neurons = []
    n_neurons = np.int64(max(recording.n_neurons, 1))
    while keys:  # freed one by one
        event_bin, neuron = np.divmod(keys.pop(0), n_neurons)
        if event_bin.size:
            low = int(event_bin[0])
            pointer[low + 1 : int(event_bin[-1]) + 2] += np.bincount(event_bin - low)
            neurons.append(neuron.astype(recording.spike_neuron.dtype))
    np.cumsum(pointer, out=pointer)
    labels = trials.conditions.tolist()
    names = tuple(sorted({name for name in labels if name}))
    index_of = {name: index for index, name in enumerate(names)}
    return BinnedSpikes(
        dt_ns=width,
        bins_per_trial=n_bins,
        warmup_bins=np.minimum(-(-trials.warmup_ns // width), n_bins),
        row_pointer=pointer,
        event_neuron=np.concatenate([np.zeros(0, recording.spike_neuron.dtype), *neurons]),
        event_count=None if all((part == 1).all() for part in counts) else np.concatenate(counts),
        neurons=recording.neurons,
        conditions=np.array([index_of.get(name, -1) for name in labels], dtype=np.int64),
        condition_names=names,
        start_ns=trials.start_ns,
        trial_index=np.arange(len(trials)),
        trial_bin=trials.offset_ns // width,
        source_signals=recording.signals,
    )


def width_ns(recording: Recording, dt_ms: float | None) -> int:
    """Return the bin width that `dt_ms` means for a recording, ns; BinWidthError as in `Recording.bin`."""
    native = recording.bin_width_ns
    if dt_ms is None:
        return native or NS_PER_MS
    width = bin_width_ns(dt_ms)
    if native is not None and width % native:
        options = ", ".join(f"{native * factor / NS_PER_MS:g}" for factor in (1, 2, 3, 4))
        raise BinWidthError(
            f"dt_ms={dt_ms} is no whole multiple of the recording's native bins of {native / NS_PER_MS:g} ms. Use {options}, ..."
        )
    return width


def count_multi_spike_bins(recording: Recording, width: int) -> int:
    """Return how many (bin, neuron) hold more than one spike in bins of `width` ns, without an index of the bins."""
    n_bins = (recording.trials.duration_ns // width).astype(np.int64)
    offset = np.concatenate([[0], np.cumsum(n_bins)]).astype(np.int64)
    return sum(int(np.count_nonzero(count > 1)) for _, count in _sorted_blocks(recording, width, n_bins, offset))


def _check_number(n_bins: np.ndarray, width: int) -> None:
    total = int(n_bins.sum())
    if total > _MOST_BINS:
        raise BinWidthError(
            f"{total * width / 1e9:.4g} s in bins of {width / NS_PER_MS:g} ms are {total} bins, whose index alone takes "
            f"{total * 8e-9:.0f} GB. Is the time unit right? If it is, use wider bins or select a time range."
        )


def _check_signals(recording: Recording, n_bins: np.ndarray, width: int) -> None:
    """Raise RecordingError that names every signal which trials need where it is missing."""
    problems = Problems("signals do not fit the trials")
    for name, signal in recording.signals.items():
        reasons = []
        for k, start in enumerate(recording.trials.start_ns.tolist()):
            reason = gap_in(signal, start, start + int(n_bins[k]) * width, width) if n_bins[k] else None
            if reason is not None:
                reasons.append(f"trial {k}: {reason}")
        if reasons:
            more = f" (and {len(reasons) - 1} more trials)" if len(reasons) > 1 else ""
            problems.add(
                f"signal {name!r}, {reasons[0]}{more}. Fill the gap, select trials or a time range that it covers, or leave it out with "
                "select(signals=[...])."
            )
    problems.raise_if_any(RecordingError)


def _sorted_blocks(recording: Recording, width: int, n_bins: np.ndarray, offset: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (key, count) of consecutive groups of trials or parts of trials; key = global bin * n_neurons + neuron, sorted and unique."""
    times, start = recording.spike_times_ns, recording.trials.start_ns
    trial, low_bin, high_bin = _parts(recording, width, n_bins)
    begin = np.searchsorted(times, start[trial] + low_bin * width, side="left")
    number = np.searchsorted(times, start[trial] + high_bin * width, side="left") - begin
    group = np.cumsum(number) // _BLOCK_SPIKES
    for members in np.split(np.arange(len(trial)), np.flatnonzero(np.diff(group)) + 1):
        sizes = number[members]
        if not sizes.sum():
            continue
        first = np.cumsum(sizes) - sizes
        spike = np.arange(sizes.sum()) + np.repeat(begin[members] - first, sizes)
        home = np.repeat(trial[members], sizes)
        key = (offset[home] + (times[spike] - start[home]) // width) * max(recording.n_neurons, 1) + recording.spike_neuron[spike]
        order = np.argsort(key, kind="stable")
        key = key[order]
        at = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        if recording.spike_count is not None:
            count = np.add.reduceat(recording.spike_count[spike[order]], at, dtype=np.int64)
        else:
            count = np.diff(np.append(at, key.size))
        yield key[at], count.astype(np.uint16 if count.max() <= np.iinfo(np.uint16).max else np.uint32)


def _parts(recording: Recording, width: int, n_bins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (trial, first bin, stop bin) of parts of trials with about a block of spikes at most, in order, each (n_parts,)."""
    times, trials = recording.spike_times_ns, recording.trials
    held = np.searchsorted(times, trials.stop_ns, side="left") - np.searchsorted(times, trials.start_ns, side="left")
    n_parts = np.clip(-(-held // _BLOCK_SPIKES), 1, np.maximum(n_bins, 1))
    trial = np.repeat(np.arange(len(trials)), n_parts)
    part = np.arange(len(trial)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    return trial, part * n_bins[trial] // n_parts[trial], (part + 1) * n_bins[trial] // n_parts[trial]
