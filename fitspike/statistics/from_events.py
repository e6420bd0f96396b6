"""Summary statistics straight from events, in blocks: for reports, at any size, never densified.

Every function takes `BinnedSpikes` (or, for intervals, a `Recording`, whose nanosecond times it then uses) and counts scored bins only:
warm-up bins and spikes outside trials are left out, and no interval, window or lag crosses the border of a trial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.recording import Recording

BLOCK_EVENTS = 1 << 20
"""Events handled at once: a few tens of megabytes of temporary arrays."""


@dataclass(frozen=True)
class EventBlock:
    """Some scored events in order of time. All arrays (n_events,): `time_ns` within the trial, `trial`, `neuron`, `count`."""

    time_ns: np.ndarray
    trial: np.ndarray
    neuron: np.ndarray
    count: np.ndarray


def event_blocks(data: BinnedSpikes | Recording, max_events: int = BLOCK_EVENTS) -> Iterator[EventBlock]:
    """Yield the scored events of a recording in time order; binned events carry the time of their bin's left edge."""
    if hasattr(data, "row_pointer"):
        yield from _binned_blocks(data, max_events)
    elif data.is_binned:
        yield from _binned_blocks(data.bin(), max_events)
    else:
        yield from _recording_blocks(data, max_events)


def _binned_blocks(binned: BinnedSpikes, max_events: int) -> Iterator[EventBlock]:
    row_pointer, offset = np.asarray(binned.row_pointer), np.asarray(binned.trial_offset)
    first = 0
    while first < binned.n_bins_total:
        # at least one bin, however many events it holds
        last = max(first + 1, int(np.searchsorted(row_pointer, row_pointer[first] + max_events, side="right")) - 1)
        last = min(last, binned.n_bins_total)
        events = slice(int(row_pointer[first]), int(row_pointer[last]))
        bins = np.repeat(np.arange(first, last), np.diff(row_pointer[first : last + 1]))
        trial = np.searchsorted(offset, bins, side="right") - 1
        bin_in_trial = bins - offset[trial]
        keep = bin_in_trial >= np.asarray(binned.warmup_bins)[trial]
        count = np.ones(len(bins), np.int64) if binned.event_count is None else binned.event_count[events].astype(np.int64)
        yield EventBlock(
            (bin_in_trial * binned.dt_ns)[keep], trial[keep], np.asarray(binned.event_neuron[events])[keep].astype(np.int64), count[keep]
        )
        first = last


def _recording_blocks(recording: Recording, max_events: int) -> Iterator[EventBlock]:
    trials = recording.trials
    order = np.argsort(trials.start_ns, kind="stable")
    for first in range(0, recording.n_spikes, max_events):
        time = np.asarray(recording.spike_times_ns[first : first + max_events])
        neuron = np.asarray(recording.spike_neuron[first : first + max_events]).astype(np.int64)
        row = np.searchsorted(trials.start_ns[order], time, side="right") - 1
        trial = order[np.maximum(row, 0)]
        keep = (row >= 0) & (time < trials.stop_ns[trial]) & (time >= trials.start_ns[trial] + trials.warmup_ns[trial])
        time, trial, neuron = time[keep], trial[keep], neuron[keep]
        yield EventBlock(time - trials.start_ns[trial], trial, neuron, np.ones(len(time), np.int64))


def scored_duration_s(data: BinnedSpikes | Recording) -> np.ndarray:
    """Return the scored time of each trial, (n_trials,), in seconds."""
    if hasattr(data, "row_pointer"):
        return (np.asarray(data.bins_per_trial) - np.asarray(data.warmup_bins)) * (data.dt_ns / NS_PER_S)
    return (data.trials.stop_ns - data.trials.start_ns - data.trials.warmup_ns) / NS_PER_S


def firing_rates_hz(data: BinnedSpikes | Recording) -> np.ndarray:
    """Return each neuron's spikes over the scored time, (n_neurons,), in Hz."""
    counts = np.zeros(data.n_neurons)
    for block in event_blocks(data):
        counts += np.bincount(block.neuron, weights=block.count, minlength=data.n_neurons)
    return counts / max(scored_duration_s(data).sum(), 1e-300)


def trial_rates_hz(data: BinnedSpikes | Recording) -> np.ndarray:
    """Return the mean rate over neurons of each trial, (n_trials,), in Hz; a run-away free run stands out here."""
    counts = np.zeros(data.n_trials)
    for block in event_blocks(data):
        counts += np.bincount(block.trial, weights=block.count, minlength=data.n_trials)
    duration = scored_duration_s(data)
    return np.divide(counts, duration * data.n_neurons, out=np.full(data.n_trials, np.nan), where=duration > 0)


# --- intervals ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IntervalStatistics:
    """Inter-spike intervals of each neuron. All (n_neurons,) but `histogram` (n_neurons, n_classes); NaN where undefined.

    cv is sd / mean with the population sd (ddof = 0). cv2 is the mean of 2 |I' - I| / (I' + I) over neighbouring intervals (Holt, Softky,
    Koch, Douglas 1996). lv is the mean of 3 (I' - I)^2 / (I' + I)^2 (Shinomoto, Shima, Tanji 2003). Several spikes of one bin are
    intervals of zero length; a pair of two such intervals is left out of cv2 and lv.
    """

    n_intervals: np.ndarray
    mean_ms: np.ndarray
    cv: np.ndarray
    cv2: np.ndarray
    lv: np.ndarray
    histogram: np.ndarray


@dataclass(frozen=True)
class IntervalSums:
    """What interval statistics are made of, added up block by block; `edges_ns` (n_classes + 1,), `kept` each train's last two spikes.

    A train is one neuron in one trial. Blocks may come in any order of trials, but those of one train in the order of time.
    """

    n_neurons: int
    edges_ns: np.ndarray
    sums: np.ndarray
    histogram: np.ndarray
    kept: EventBlock

    @classmethod
    def empty(cls, n_neurons: int, edges_ms: np.ndarray | None = None) -> IntervalSums:
        """Return sums of nothing. Class j holds edges_ms[j] <= interval < edges_ms[j + 1]; without edges there is no class."""
        edges_ns = np.rint(np.asarray([0.0] if edges_ms is None else edges_ms, dtype=np.float64) * NS_PER_MS)
        none = np.zeros(0, np.int64)
        return cls(
            n_neurons,
            edges_ns,
            np.zeros((6, n_neurons)),
            np.zeros((n_neurons, len(edges_ns) - 1), np.int64),
            EventBlock(none, none, none, none),
        )

    def added(self, block: EventBlock, open_trials: np.ndarray) -> IntervalSums:
        """Return the sums with a block added. `open_trials` are the trials of which more may follow."""
        repeat = block.count if (block.count > 1).any() else 1
        time, trial, neuron = (
            np.concatenate([old, np.repeat(new, repeat)])
            for old, new in (
                (self.kept.time_ns, block.time_ns),
                (self.kept.trial, block.trial),
                (self.kept.neuron, block.neuron),
            )
        )
        is_new = np.arange(len(time)) >= len(self.kept.time_ns)
        train = trial * self.n_neurons + neuron
        order = np.argsort(train, kind="stable")
        time, trial, neuron, train, is_new = time[order], trial[order], neuron[order], train[order], is_new[order]

        interval = np.where(train[1:] == train[:-1], time[1:] - time[:-1], -1)
        use = (interval >= 0) & is_new[1:]
        owner, length = neuron[1:][use], interval[use].astype(np.float64)
        before, after = interval[:-1], interval[1:]
        pair = (before >= 0) & (after >= 0) & (before + after > 0) & is_new[2:]
        pair_owner = neuron[2:][pair]
        contrast = np.abs(after[pair] - before[pair]) / (after[pair] + before[pair])
        sums = self.sums + [
            np.bincount(owner, minlength=self.n_neurons),
            np.bincount(owner, weights=length, minlength=self.n_neurons),
            np.bincount(owner, weights=length**2, minlength=self.n_neurons),
            np.bincount(pair_owner, minlength=self.n_neurons),
            np.bincount(pair_owner, weights=2 * contrast, minlength=self.n_neurons),
            np.bincount(pair_owner, weights=3 * contrast**2, minlength=self.n_neurons),
        ]
        histogram, n_classes = self.histogram, self.histogram.shape[1]
        if n_classes:
            which = np.searchsorted(self.edges_ns, length, side="right") - 1
            inside = (which >= 0) & (which < n_classes)
            cell = owner[inside] * n_classes + which[inside]
            histogram = histogram + np.bincount(cell, minlength=histogram.size).reshape(histogram.shape)
        from_end = np.searchsorted(train, train, side="right") - np.arange(len(train))
        keep = (from_end <= 2) & np.isin(trial, open_trials)
        kept = EventBlock(time[keep], trial[keep], neuron[keep], np.ones(np.count_nonzero(keep), np.int64))
        return IntervalSums(self.n_neurons, self.edges_ns, sums, histogram, kept)

    def finish(self) -> IntervalStatistics:
        """Return the statistics."""
        n, total, square, pairs, cv2, lv = self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / n
            variance = np.maximum(square / n - mean**2, 0)
            return IntervalStatistics(
                n.astype(np.int64), mean / NS_PER_MS, np.sqrt(variance) / mean, cv2 / pairs, lv / pairs, self.histogram
            )


def interval_statistics(data: BinnedSpikes | Recording, edges_ms: np.ndarray | None = None) -> IntervalStatistics:
    """Return interval statistics and histograms; intervals never cross a trial.

    Parameters
    ----------
    data : BinnedSpikes or Recording
    edges_ms : ndarray, (n_classes + 1,), ascending
        Class j holds edges_ms[j] <= interval < edges_ms[j + 1]. Without it the histogram has no class.
    """
    sums = IntervalSums.empty(data.n_neurons, edges_ms)
    for block in event_blocks(data):
        sums = sums.added(block, block.trial[-1:])
    return sums.finish()


# --- counts in windows -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WindowCounts:
    """Spike counts in whole windows. counts (n_windows, n_neurons) float32; trial and position-in-trial of each window, (n_windows,)."""

    counts: np.ndarray
    trial: np.ndarray
    position: np.ndarray


def window_bins(binned: BinnedSpikes, window_ms: float) -> int:
    """Return a window's length in bins.

    Raises
    ------
    InvalidInputError
        If it is no whole, positive multiple of the bin width.
    """
    n_bins = round(window_ms * NS_PER_MS / binned.dt_ns)
    if n_bins < 1 or abs(n_bins * binned.dt_ns - window_ms * NS_PER_MS) > 0.5:
        near = max(1, n_bins) * binned.dt_ms
        raise InvalidInputError(f"a window of {window_ms} ms is no whole number of bins of {binned.dt_ms} ms. Use {near:g} ms.")
    return n_bins


def window_count_blocks(
    binned: BinnedSpikes, window_ms: float, *, start_ms: float = 0.0, stop_ms: float | None = None, max_values: int = 1 << 22
) -> Iterator[WindowCounts]:
    """Yield counts of all neurons in consecutive whole windows of each trial, at most `max_values` counts at once.

    Windows start at `start_ms` after the trial's first scored bin and end by `stop_ms` after it (default: the trial's end); what is left
    over at the end of a trial is dropped.
    """
    width = window_bins(binned, window_ms)
    skip = round(start_ms * NS_PER_MS / binned.dt_ns)
    first_bin = np.asarray(binned.warmup_bins) + skip
    stop = np.asarray(binned.bins_per_trial)
    if stop_ms is not None:
        stop = np.minimum(stop, np.asarray(binned.warmup_bins) + round(stop_ms * NS_PER_MS / binned.dt_ns))
    n_windows = np.maximum((stop - first_bin) // width, 0)
    trial = np.repeat(np.arange(binned.n_trials), n_windows)
    position = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    start = np.asarray(binned.trial_offset)[trial] + first_bin[trial] + position * width  # global bin of each window
    step = max(1, max_values // max(1, binned.n_neurons))
    for a in range(0, len(start), step):
        begin = start[a : a + step]
        events = slice(int(binned.row_pointer[begin[0]]), int(binned.row_pointer[begin[-1] + width]))
        first_event = binned.row_pointer[begin] - events.start
        stop_event = binned.row_pointer[begin + width] - events.start
        index = np.arange(events.stop - events.start)
        window = np.searchsorted(first_event, index, side="right") - 1
        # empty windows share a first event with the next one: searchsorted takes the last of them, the one that holds the event
        inside = (window >= 0) & (index < stop_event[np.maximum(window, 0)])
        neuron = np.asarray(binned.event_neuron[events]).astype(np.int64)[inside]
        weights = None if binned.event_count is None else binned.event_count[events][inside]
        flat = np.bincount(window[inside] * binned.n_neurons + neuron, weights=weights, minlength=len(begin) * binned.n_neurons)
        counts = flat.astype(np.float32).reshape(len(begin), binned.n_neurons)
        yield WindowCounts(counts, trial[a : a + step], position[a : a + step])


@dataclass(frozen=True)
class CountStatistics:
    """Second-order statistics of counts in windows.

    fano (n_neurons,): variance over mean, the mean over groups of windows of equal expected count (see `count_statistics`), with `ddof`.
    correlation (n_neurons, n_neurons): Pearson correlation of the centred counts, NaN where a neuron does not vary.
    n_windows: windows used. is_centred_on_repeats: whether the mean removed was that of each window over repeated trials.
    """

    fano: np.ndarray
    correlation: np.ndarray
    n_windows: int
    is_centred_on_repeats: bool


def count_statistics(
    binned: BinnedSpikes,
    window_ms: float,
    *,
    start_ms: float = 0.0,
    stop_ms: float | None = None,
    centre: str = "auto",
    ddof: int = 0,
    neurons: np.ndarray | None = None,
    standardise: bool = False,
) -> CountStatistics:
    """Return Fano factors and noise correlations of spike counts.

    centre="condition" removes the mean over the repeats of each (condition, window in trial), so that what the stimulus explains does not
    count as noise; the Pearson correlation pools what is left of all windows. centre="mean" removes each trial's own mean over its windows
    (one long recording: then slow drift counts as correlation). "auto" takes "condition" where trials repeat.
    The Fano factor is Var / mean within each group that is centred together, averaged over groups with a spike.

    Parameters
    ----------
    neurons : ndarray of int, optional
        Neurons to use. Default: all.
    standardise : bool
        Also divide by the standard deviation of the group before pooling, so that conditions of high rate do not weigh more.
    """
    if centre not in ("auto", "condition", "mean"):
        raise InvalidInputError(f"centre={centre!r} is unknown. Use 'auto', 'condition' or 'mean'.")
    neurons = np.arange(binned.n_neurons) if neurons is None else np.asarray(neurons)
    repeats = binned.repeat_groups
    on_repeats = centre == "condition" or (centre == "auto" and bool((repeats >= 0).any()))
    if centre == "condition" and (repeats < 0).all():
        raise InvalidInputError("centre='condition' needs trials that repeat a condition, and none does. Use centre='mean'.")

    def group_of(block: WindowCounts) -> np.ndarray:
        if not on_repeats:
            return block.trial
        longest = int(np.max(binned.bins_per_trial))
        return np.where(repeats[block.trial] < 0, -1, repeats[block.trial] * longest + block.position)

    def blocks() -> Iterator[WindowCounts]:
        return window_count_blocks(binned, window_ms, start_ms=start_ms, stop_ms=stop_ms)

    labels = np.unique(np.concatenate([np.zeros(0, np.int64), *(np.unique(group_of(block)) for block in blocks())]))
    labels = labels[labels >= 0]
    sizes, sums = np.zeros(len(labels)), np.zeros((len(labels), len(neurons)))
    for block in blocks():
        index, counts = _labelled(group_of(block), labels, block.counts[:, neurons])
        sizes += np.bincount(index, minlength=len(labels))
        np.add.at(sums, index, counts)
    mean = sums / np.maximum(sizes, 1)[:, None]
    squares = np.zeros_like(sums)
    for block in blocks():
        index, counts = _labelled(group_of(block), labels, block.counts[:, neurons])
        np.add.at(squares, index, (counts - mean[index]) ** 2)
    spread = np.sqrt(squares / np.maximum(sizes, 1)[:, None])
    scale_of = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0) if standardise else np.ones_like(spread)
    product = np.zeros((len(neurons), len(neurons)))
    used = 0
    for block in blocks():
        index, counts = _labelled(group_of(block), labels, block.counts[:, neurons])
        centred = (counts - mean[index]) * scale_of[index]
        product += centred.T @ centred
        used += len(index)
    fano = _fano_of_groups(sizes, mean, squares, ddof)
    scale = np.sqrt(np.diag(product))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = product / np.outer(scale, scale)
    correlation[(scale == 0)[:, None] | (scale == 0)] = np.nan
    return CountStatistics(fano, correlation, used, on_repeats)


def _labelled(group: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row in `labels` of each window that has a group, and its counts as float64."""
    keep = group >= 0
    return np.searchsorted(labels, group[keep]), counts[keep].astype(np.float64)


def _fano_of_groups(sizes: np.ndarray, mean: np.ndarray, squares: np.ndarray, ddof: int) -> np.ndarray:
    """Return the mean over groups of variance / mean, groups without a spike or with too few windows left out; NaN where none is left."""
    usable = (sizes > max(ddof, 1))[:, None] & (mean > 0)
    ratio = np.divide(squares, np.maximum(sizes - ddof, 1)[:, None] * mean, out=np.zeros_like(mean), where=usable)
    n_groups = usable.sum(0)
    return np.divide(ratio.sum(0), n_groups, out=np.full(mean.shape[1], np.nan), where=n_groups > 0)
