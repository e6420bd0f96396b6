"""Spikes in bins without a dense array: time-sorted events with one row pointer per bin, read in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import BinWidthError, DenseTooLargeError, InvalidInputError, RecordingError
from fitspike.recording.tables import NeuronTable, Signal
from fitspike.units import NS_PER_MS, NS_PER_S, bin_width_ns

if TYPE_CHECKING:
    import torch

    from fitspike.models.base import DataInfo
    from fitspike.recording.recording import Recording


@dataclass(frozen=True, eq=False)
class SpikeChunk:
    """Some consecutive bins of some trials: what models, losses and statistics receive.

    trial (n_trials,) numbers within the BinnedSpikes; row_pointer (n_trials, n_bins + 1) into event_neuron and event_count;
    condition (n_trials,) index of the trial's condition, -1 without; start_s (n_trials,) absolute time of the chunk's first bin;
    mask_numpy (n_trials, n_bins) False past the end of a trial and in its warm-up; signals (n_trials, n_bins, n_channels).
    """

    trial: np.ndarray
    first_bin: int
    n_bins: int
    is_first: bool
    dt_ms: float
    n_neurons: int
    row_pointer: np.ndarray
    event_neuron: np.ndarray
    event_count: np.ndarray | None
    mask_numpy: np.ndarray
    condition: np.ndarray
    start_s: np.ndarray
    signal_values: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def empty(
        cls,
        n_trials: int,
        n_bins: int,
        n_neurons: int,
        dt_ms: float,
        *,
        signals: Mapping[str, np.ndarray] | None = None,
        condition: np.ndarray | None = None,
        start_s: np.ndarray | None = None,
        first_bin: int = 0,
    ) -> SpikeChunk:
        """Return a chunk without spikes: the context of a free rollout. `signals` (n_trials, n_bins, n_channels)."""
        return cls(
            np.arange(n_trials),
            first_bin,
            n_bins,
            first_bin == 0,
            dt_ms,
            n_neurons,
            np.zeros((n_trials, n_bins + 1), dtype=np.int64),
            np.zeros(0, dtype=np.uint16),
            None,
            np.ones((n_trials, n_bins), dtype=bool),
            np.full(n_trials, -1) if condition is None else np.asarray(condition, dtype=np.int64),
            np.zeros(n_trials) if start_s is None else np.asarray(start_s, dtype=np.float64),
            dict(signals or {}),
        )

    @property
    def n_trials(self) -> int:
        """Return the number of trials in the chunk."""
        return len(self.trial)

    @cached_property
    def mask(self) -> torch.Tensor:
        """Return the mask as a bool tensor (n_trials, n_bins)."""
        import torch

        return torch.as_tensor(self.mask_numpy)

    @cached_property
    def signals(self) -> Mapping[str, torch.Tensor]:
        """Return the signals as float32 tensors (n_trials, n_bins, n_channels)."""
        import torch

        return {name: torch.as_tensor(np.asarray(values, dtype=np.float32)) for name, values in self.signal_values.items()}

    def dense_numpy(self, dtype: str = "float32") -> np.ndarray:
        """Return the spike counts (n_trials, n_bins, n_neurons)."""
        dense = np.zeros((self.n_trials, self.n_bins, self.n_neurons), dtype=dtype)
        for k in range(self.n_trials):
            rows = self.row_pointer[k]
            events = slice(int(rows[0]), int(rows[-1]))
            bins = np.repeat(np.arange(self.n_bins), np.diff(rows))
            dense[k, bins, self.event_neuron[events]] = 1 if self.event_count is None else self.event_count[events]
        return dense

    def dense(self, dtype: str = "float32", device: str = "cpu") -> torch.Tensor:
        """Return the spike counts as a tensor (n_trials, n_bins, n_neurons)."""
        import torch

        return torch.as_tensor(self.dense_numpy(dtype), device=device)


@dataclass(frozen=True, eq=False)
class BinnedSpikes:
    """Spike counts of all trials as events sorted by (trial, bin, neuron).

    bins_per_trial, warmup_bins, trial_index, conditions, start_ns : (n_trials,) int64. row_pointer (n_bins_total + 1,) int64: the events
    of global bin b, which is trial_offset[trial] + bin in the trial, are row_pointer[b] : row_pointer[b + 1]. event_count is None when
    all counts are one. The first `warmup_bins` of a trial feed history and are never scored.
    """

    dt_ns: int
    bins_per_trial: np.ndarray
    warmup_bins: np.ndarray
    row_pointer: np.ndarray
    event_neuron: np.ndarray
    event_count: np.ndarray | None
    neurons: NeuronTable
    conditions: np.ndarray
    condition_names: tuple[str, ...]
    start_ns: np.ndarray
    trial_index: np.ndarray
    trial_bin: np.ndarray
    """(n_trials,) int64: which bin of its original trial each trial starts with (0 but for pieces cut by `pieces`)."""
    source_signals: Mapping[str, Signal] = field(default_factory=dict)

    @property
    def n_trials(self) -> int:
        """Return the number of trials."""
        return len(self.bins_per_trial)

    @property
    def n_neurons(self) -> int:
        """Return the number of neurons."""
        return len(self.neurons)

    @property
    def dt_ms(self) -> float:
        """Return the bin width, ms."""
        return self.dt_ns / NS_PER_MS

    @cached_property
    def trial_offset(self) -> np.ndarray:
        """Return the global bin at which each trial starts, and the total at the end, (n_trials + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.bins_per_trial)]).astype(np.int64)

    @property
    def n_bins_total(self) -> int:
        """Return the number of bins of all trials, warm-up included."""
        return int(self.trial_offset[-1])

    @property
    def n_scored_bins(self) -> int:
        """Return the number of bins outside warm-ups."""
        return int((self.bins_per_trial - self.warmup_bins).sum())

    @property
    def n_spikes(self) -> int:
        """Return the number of spikes in all bins, warm-up included."""
        return len(self.event_neuron) if self.event_count is None else int(self.event_count.sum())

    @cached_property
    def scored(self) -> np.ndarray:
        """Return which global bins are scored, (n_bins_total,) bool."""
        mask = np.ones(self.n_bins_total, dtype=bool)
        for offset, warmup in zip(self.trial_offset, self.warmup_bins, strict=False):
            mask[offset : offset + warmup] = False
        return mask

    @cached_property
    def event_bin(self) -> np.ndarray:
        """Return each event's global bin, (n_events,) int64."""
        return np.repeat(np.arange(self.n_bins_total), np.diff(self.row_pointer))

    def counts(self, *, scored_only: bool = False) -> np.ndarray:
        """Return spike counts per trial and neuron, (n_trials, n_neurons) int64, without densifying."""
        weight = np.ones(len(self.event_neuron)) if self.event_count is None else self.event_count.astype(np.float64)
        trial = np.searchsorted(self.trial_offset, self.event_bin, side="right") - 1
        if scored_only:
            weight = weight * self.scored[self.event_bin]
        flat = np.bincount(
            trial * self.n_neurons + self.event_neuron.astype(np.int64), weights=weight, minlength=self.n_trials * self.n_neurons
        )
        return np.rint(flat).astype(np.int64).reshape(self.n_trials, self.n_neurons)

    def mean_count(self) -> np.ndarray:
        """Return each neuron's mean spike count per scored bin, (n_neurons,); NaN without scored bins."""
        total = self.counts(scored_only=True).sum(axis=0)
        return total / self.n_scored_bins if self.n_scored_bins else np.full(self.n_neurons, np.nan)

    def multi_spike_bins(self) -> int:
        """Return how many (bin, neuron) entries hold more than one spike; above 0 a Bernoulli emission would lose spikes."""
        return 0 if self.event_count is None else int(np.count_nonzero(self.event_count > 1))

    def info(self) -> DataInfo:
        """Return what a model may know of these data before it sees them."""
        from fitspike.models.base import DataInfo

        return DataInfo(
            n_neurons=self.n_neurons,
            n_trials=self.n_trials,
            dt_ms=self.dt_ms,
            bins_per_trial=self.bins_per_trial,
            signals={name: signal.n_channels for name, signal in self.source_signals.items()},
            populations=tuple(self.neurons.populations),
            n_conditions=len(self.condition_names),
            mean_count=self.mean_count(),
        )

    # -- signals --------------------------------------------------------------------------------------------------------------------

    @property
    def signals(self) -> Mapping[str, np.ndarray]:
        """Return each signal over all bins, (n_bins_total, n_channels) float32, resampled when first asked for."""
        return BinnedSignals(self)

    def signal_values(self, name: str, first_bin: int, stop_bin: int) -> np.ndarray:
        """Return a signal over global bins first_bin .. stop_bin, (n_bins, n_channels) float32; see `trial_signal_values`."""
        parts = []
        for k in range(int(np.searchsorted(self.trial_offset, first_bin, side="right")) - 1, self.n_trials):
            low, high = max(first_bin, int(self.trial_offset[k])), min(stop_bin, int(self.trial_offset[k + 1]))
            if low >= high and self.trial_offset[k] >= stop_bin:
                break
            if low < high:
                parts.append(self.trial_signal_values(name, k, low - int(self.trial_offset[k]), high - low))
        return np.concatenate(parts) if parts else np.zeros((0, self.source_signals[name].n_channels), np.float32)

    def trial_signal_values(self, name: str, trial: int, first_bin: int, n_bins: int) -> np.ndarray:
        """Return a signal averaged over bins, (n_bins, n_channels) float32; a signal sampled more slowly than the bins is interpolated.

        Raises
        ------
        RecordingError
            If the signal does not cover these bins or holds NaN there.
        """
        signal = self.source_signals[name]
        edges = self.start_ns[trial] + (first_bin + np.arange(n_bins + 1)) * self.dt_ns
        position = (edges - signal.start_ns) * (signal.sampling_rate_hz / NS_PER_S)
        n_samples = len(signal.values)
        # Half a sample of slack: a signal may start or end that much inside the outer bins.
        slack = max(0.5, 0.5 * self.dt_ns * signal.sampling_rate_hz / NS_PER_S) + 1e-6
        if n_bins and (position[0] < -slack or position[-1] > n_samples + slack):
            raise RecordingError(
                f"signal {name!r} covers {signal.start_ns / NS_PER_S:.6g} to {signal.stop_ns / NS_PER_S:.6g} s, but trial {trial} needs "
                f"{edges[0] / NS_PER_S:.6g} to {edges[-1] / NS_PER_S:.6g} s. Select a time range that the signal covers, or leave it out."
            )
        per_bin = self.dt_ns * signal.sampling_rate_hz / NS_PER_S
        if per_bin >= 1.0 - 1e-9:
            index = np.clip(np.ceil(position - 1e-6).astype(np.int64), 0, n_samples)
            low = max(int(index[0]), 0)
            block = np.asarray(signal.values[low : int(index[-1])], dtype=np.float64)
            total = np.concatenate([np.zeros((1, signal.n_channels)), np.cumsum(block, axis=0)])
            number = np.diff(index)
            values = np.diff(total[index - low], axis=0) / np.maximum(number, 1)[:, None]
            bare = np.flatnonzero(number == 0)
            if bare.size:
                nearest = np.clip(np.rint(position[:-1][bare]).astype(np.int64), 0, n_samples - 1)
                values[bare] = np.asarray(signal.values, dtype=np.float64)[nearest]
        else:
            centre = np.clip((position[:-1] + position[1:]) / 2 - 0.5, 0, n_samples - 1)
            left = np.minimum(centre.astype(np.int64), max(n_samples - 2, 0))
            fraction = (centre - left)[:, None]
            low, high = int(left.min(initial=0)), int(left.max(initial=0)) + 2
            block = np.asarray(signal.values[low:high], dtype=np.float64)
            right = np.minimum(left - low + 1, len(block) - 1)
            values = block[left - low] * (1 - fraction) + block[right] * fraction
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            at = edges[bad] / NS_PER_S
            raise RecordingError(
                f"signal {name!r} is NaN or infinite at {at:.6g} s (trial {trial}). Interpolate it, cut the time range, or leave it out."
            )
        return values.astype(np.float32)

    # -- reading --------------------------------------------------------------------------------------------------------------------

    def chunk(self, trials: np.ndarray, first_bin: int, n_bins: int) -> SpikeChunk:
        """Return bins first_bin .. first_bin + n_bins of some trials; bins past a trial's end are masked and empty."""
        trials = np.asarray(trials, dtype=np.int64)
        stop = np.minimum(first_bin + n_bins, self.bins_per_trial[trials])
        columns = first_bin + np.arange(n_bins + 1)
        within = np.minimum(columns[None, :], np.maximum(stop, first_bin)[:, None])
        within = np.minimum(within, self.bins_per_trial[trials][:, None])
        pointer = self.row_pointer[self.trial_offset[trials][:, None] + within]  # (n_trials, n_bins + 1)
        bins = columns[None, :-1]
        mask = (bins < self.bins_per_trial[trials][:, None]) & (bins >= self.warmup_bins[trials][:, None])
        signals = {}
        for name, signal in self.source_signals.items():
            values = np.zeros((len(trials), n_bins, signal.n_channels), dtype=np.float32)
            for row, k in enumerate(trials):
                length = int(max(0, stop[row] - first_bin))
                if length:
                    values[row, :length] = self.trial_signal_values(name, int(k), first_bin, length)
            signals[name] = values
        return SpikeChunk(
            trials,
            first_bin,
            n_bins,
            first_bin == 0,
            self.dt_ms,
            self.n_neurons,
            pointer,
            self.event_neuron,
            self.event_count,
            mask,
            self.conditions[trials],
            (self.start_ns[trials] + first_bin * self.dt_ns) / NS_PER_S,
            signals,
        )

    def chunks(
        self,
        n_bins: int,
        *,
        trials: Sequence[int] | None = None,
        batch_trials: int = 1,
        carry: bool = False,
        shuffle: np.random.Generator | None = None,
    ) -> Iterator[SpikeChunk]:
        """Yield chunks of at most `n_bins` bins and `batch_trials` trials, covering every bin once.

        With `carry`, the chunks of one batch of trials follow each other in time, so that state can be handed on (`is_first` marks where
        it starts fresh). `shuffle` permutes the trials, and without `carry` all chunks. Trials of a batch may differ in length.
        """
        if n_bins < 1 or batch_trials < 1:
            raise InvalidInputError(f"n_bins={n_bins} and batch_trials={batch_trials} must be at least 1.")
        order = np.arange(self.n_trials) if trials is None else np.asarray(trials, dtype=np.int64)
        if shuffle is not None:
            order = shuffle.permutation(order)
        plan = []
        for at in range(0, len(order), batch_trials):
            batch = order[at : at + batch_trials]
            longest = int(self.bins_per_trial[batch].max(initial=0))
            plan += [(batch, first, min(n_bins, longest - first)) for first in range(0, longest, n_bins)]
        if shuffle is not None and not carry:
            plan = [plan[i] for i in shuffle.permutation(len(plan))]
        for batch, first, length in plan:
            yield self.chunk(batch, first, length)

    def dense_numpy(
        self, *, trials: Sequence[int] | None = None, bins: range | None = None, dtype: str = "float32", max_gb: float = 1.0
    ) -> np.ndarray:
        """Return counts (n_trials, n_bins, n_neurons), zeros past the end of a short trial.

        Raises
        ------
        DenseTooLargeError
            If the array would need more than `max_gb` GB.
        """
        index = np.arange(self.n_trials) if trials is None else np.asarray(trials, dtype=np.int64)
        span = range(int(self.bins_per_trial[index].max(initial=0))) if bins is None else bins
        needed = len(index) * len(span) * self.n_neurons * np.dtype(dtype).itemsize / 1e9
        if needed > max_gb:
            raise DenseTooLargeError(
                f"dense spikes would need {needed:.1f} GB ({len(index)} trials x {len(span)} bins x {self.n_neurons} neurons, {dtype}); "
                f"the limit is {max_gb:.1f} GB. Iterate `binned.chunks(n_bins=10000)`, choose trials or bins, or raise `max_gb`."
            )
        return self.chunk(index, span.start, len(span)).dense_numpy(dtype)

    def dense(
        self,
        *,
        trials: Sequence[int] | None = None,
        bins: range | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        max_gb: float = 1.0,
    ) -> torch.Tensor:
        """Return counts as a tensor (n_trials, n_bins, n_neurons); see `dense_numpy`."""
        import torch

        return torch.as_tensor(self.dense_numpy(trials=trials, bins=bins, dtype=dtype, max_gb=max_gb), device=device)

    # -- cutting --------------------------------------------------------------------------------------------------------------------

    def pieces(self, cuts: Sequence[tuple[int, int, int, int]]) -> BinnedSpikes:
        """Return new trials cut from these: one per (trial, first_bin, stop_bin, warmup_bins), warm-up counted from first_bin."""
        trial = np.array([cut[0] for cut in cuts], dtype=np.int64)
        first = np.array([cut[1] for cut in cuts], dtype=np.int64)
        stop = np.array([cut[2] for cut in cuts], dtype=np.int64)
        warmup = np.array([cut[3] for cut in cuts], dtype=np.int64)
        length = stop - first
        if len(cuts) and ((first < 0).any() or (length < 0).any() or (stop > self.bins_per_trial[trial]).any()):
            raise InvalidInputError("a piece reaches out of its trial.")
        begin = self.trial_offset[trial] + first
        rows = [self.row_pointer[b : b + n + 1] for b, n in zip(begin, length, strict=True)]
        events = [slice(int(r[0]), int(r[-1])) for r in rows]
        n_events = np.array([0] + [e.stop - e.start for e in events])
        base = np.cumsum(n_events)
        pointer = [r[:-1] - r[0] + at for r, at in zip(rows, base, strict=False)]
        neuron = [self.event_neuron[e] for e in events]
        count = None if self.event_count is None else np.concatenate([self.event_count[e] for e in events] or [self.event_count[:0]])
        return BinnedSpikes(
            self.dt_ns,
            length,
            np.minimum(np.maximum(warmup, self.warmup_bins[trial] - first), length),
            np.concatenate([*pointer, base[-1:]]).astype(np.int64),
            np.concatenate(neuron or [self.event_neuron[:0]]),
            count,
            self.neurons,
            self.conditions[trial],
            self.condition_names,
            self.start_ns[trial] + first * self.dt_ns,
            self.trial_index[trial],
            self.trial_bin[trial] + first,
            self.source_signals,
        )

    def select_trials(self, index: Sequence[int]) -> BinnedSpikes:
        """Return some trials, in the given order."""
        return self.pieces([(int(k), 0, int(self.bins_per_trial[k]), int(self.warmup_bins[k])) for k in index])

    def select_bins(self, trial: int, start: int, stop: int, *, warmup_bins: int = 0) -> BinnedSpikes:
        """Return one piece of one trial as a trial of its own."""
        return self.pieces([(trial, start, stop, warmup_bins)])

    def folds(self, n_folds: int, *, gap_bins: int = 0, blocks_per_fold: int = 3) -> list[tuple[BinnedSpikes, BinnedSpikes]]:
        """Return (training, validation) pairs for model selection, blocked so that neighbouring bins do not fall on both sides.

        With at least `n_folds` trials whole trials are dealt out, each condition evenly. With fewer, every trial is one fold if there
        are several, else the one trial is cut into `n_folds * blocks_per_fold` blocks dealt out in turn. A piece of a cut trial takes its
        first `gap_bins` from inside itself as history, so nothing of the validation time enters training, nor the reverse.
        """
        if n_folds < 2:
            raise InvalidInputError(f"n_folds={n_folds}; cross-validation needs at least 2.")
        if self.n_trials > 1:
            fold_of = np.zeros(self.n_trials, dtype=np.int64)
            if self.n_trials <= n_folds:
                fold_of[:] = np.arange(self.n_trials)
            else:
                dealt = 0
                for condition in np.unique(self.conditions):
                    members = np.flatnonzero(self.conditions == condition)
                    fold_of[members] = (np.arange(len(members)) + dealt) % n_folds
                    dealt += len(members)
            folds = [(np.flatnonzero(fold_of != f), np.flatnonzero(fold_of == f)) for f in range(int(fold_of.max()) + 1)]
            return [(self.select_trials(train), self.select_trials(test)) for train, test in folds]
        length = int(self.bins_per_trial[0]) if self.n_trials else 0
        n_blocks = n_folds * blocks_per_fold
        if length < 2 * n_blocks:
            raise InvalidInputError(
                f"{length} bins are too few for {n_folds} folds of {blocks_per_fold} blocks. Use fewer folds or shorter bins."
            )
        edges = np.linspace(0, length, n_blocks + 1).astype(np.int64)
        result = []
        for fold in range(n_folds):
            is_test = np.arange(n_blocks) % n_folds == fold
            sides = []
            for side in (~is_test, is_test):
                change = np.flatnonzero(np.diff(np.concatenate([[0], side.astype(np.int8), [0]])))
                cuts = []
                for a, b in zip(change[::2], change[1::2], strict=True):
                    first, stop = int(edges[a]), int(edges[b])
                    warmup = 0 if first == 0 else min(gap_bins, (stop - first) // 2)
                    cuts.append((0, first, stop, warmup))
                sides.append(self.pieces(cuts))
            result.append((sides[0], sides[1]))
        return result


class BinnedSignals(Mapping):
    """The signals of binned spikes by name, each (n_bins_total, n_channels) float32, resampled at first use."""

    def __init__(self, binned: BinnedSpikes) -> None:
        self._binned = binned

    def __getitem__(self, name: str) -> np.ndarray:
        cache = self._binned.__dict__.setdefault("_signal_cache", {})
        if name not in cache:
            cache[name] = self._binned.signal_values(name, 0, self._binned.n_bins_total)
        return cache[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._binned.source_signals)

    def __len__(self) -> int:
        return len(self._binned.source_signals)


def bin_recording(recording: Recording, dt_ms: float | None = None) -> BinnedSpikes:
    """Return the spikes of a recording in bins; see `Recording.bin`."""
    native = recording.bin_width_ns
    if dt_ms is None:
        width = native or NS_PER_MS
    else:
        width = bin_width_ns(dt_ms)
    if native is not None and width % native:
        options = ", ".join(f"{native * k / NS_PER_MS:g}" for k in (1, 2, 3, 4))
        raise BinWidthError(
            f"dt_ms={dt_ms} is no whole multiple of the recording's native bins of {native / NS_PER_MS:g} ms. Use {options}, ..."
        )
    trials = recording.trials
    n_bins = (trials.duration_ns // width).astype(np.int64)
    warmup = np.minimum(-(-trials.warmup_ns // width), n_bins)
    offset = np.concatenate([[0], np.cumsum(n_bins)]).astype(np.int64)
    times, n_neurons = recording.spike_times_ns, recording.n_neurons
    begin = np.searchsorted(times, trials.start_ns, side="left")
    end = np.searchsorted(times, trials.start_ns + n_bins * width, side="left")
    # Most recordings are one trial or few; pieces are handled one by one so that memory stays that of the events.
    keys, counts = [], []
    for k in range(len(trials)):
        part = slice(int(begin[k]), int(end[k]))
        global_bin = offset[k] + (times[part] - trials.start_ns[k]) // width
        key = global_bin * n_neurons + recording.spike_neuron[part]
        ordered = np.sort(key, kind="stable")
        if ordered.size:
            is_new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
            at = np.flatnonzero(is_new)
            if recording.spike_count is None:
                number = np.diff(np.append(at, ordered.size))
            else:
                order = np.argsort(key, kind="stable")
                number = np.add.reduceat(recording.spike_count[part][order], at)
            keys.append(ordered[at])
            counts.append(number)
    key = np.concatenate(keys) if keys else np.zeros(0, np.int64)
    count = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    event_bin, event_neuron = np.divmod(key, max(n_neurons, 1))
    pointer = np.zeros(int(offset[-1]) + 1, dtype=np.int64)
    np.cumsum(np.bincount(event_bin, minlength=int(offset[-1])), out=pointer[1:])
    names = tuple(sorted({c for c in trials.conditions.tolist() if c}))
    index_of = {name: i for i, name in enumerate(names)}
    return BinnedSpikes(
        width,
        n_bins,
        warmup,
        pointer,
        event_neuron.astype(recording.spike_neuron.dtype),
        None if (count == 1).all() else count.astype(np.uint16 if count.max(initial=0) < 65536 else np.int64),
        recording.neurons,
        np.array([index_of.get(c, -1) for c in trials.conditions], dtype=np.int64),
        names,
        trials.start_ns,
        np.arange(len(trials)),
        np.zeros(len(trials), dtype=np.int64),
        recording.signals,
    )
