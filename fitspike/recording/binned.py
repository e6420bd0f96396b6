"""Spikes in bins without a dense array: time-sorted events with one row pointer per bin, read in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import DenseTooLargeError, InvalidInputError, UnknownNameError, did_you_mean
from fitspike.kernels.densify import densify
from fitspike.recording.chunk import SpikeChunk
from fitspike.recording.folds import Piece, folds
from fitspike.recording.info import DataInfo
from fitspike.recording.resample import resample
from fitspike.recording.tables import NeuronTable, Signal
from fitspike.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import torch

__all__ = ["BinnedSignals", "BinnedSpikes", "SpikeChunk"]

MIN_UNNAMED_REPEATS = 5
"""Trials without a condition count as repeats of one another from this many on; a few long files joined together do not."""

_CACHED_SIGNAL_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class BinnedSpikes:
    """Spike counts of all trials as events sorted by (trial, bin, neuron); made by `Recording.bin`.

    bins_per_trial, warmup_bins, conditions, start_ns, trial_index, trial_bin : (n_trials,) int64. row_pointer (n_bins_total + 1,) int64:
    the events of global bin b, which is trial_offset[trial] + bin in the trial, are row_pointer[b] : row_pointer[b + 1]. event_neuron and
    event_count (n_events,); event_count is None when all counts are one. The first `warmup_bins` of a trial feed history and are never
    scored. conditions index `condition_names`, -1 without. start_ns is the absolute time of each trial's first bin, trial_bin that bin's
    number in the trial as recorded (0 but where a trial's beginning was cut off), trial_index the trial's row in the recording.
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
    source_signals: Mapping[str, Signal] = field(default_factory=dict)

    folds = folds

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
        return len(self.event_neuron) if self.event_count is None else int(self.event_count.sum(dtype=np.int64))

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
        total = np.zeros((self.n_trials, self.n_neurons), dtype=np.int64)
        skip = self.warmup_bins if scored_only else np.zeros(self.n_trials, dtype=np.int64)
        begin, end = self.row_pointer[self.trial_offset[:-1] + skip], self.row_pointer[self.trial_offset[1:]]
        for k in range(self.n_trials):
            events = slice(int(begin[k]), int(end[k]))
            weights = None if self.event_count is None else self.event_count[events]
            total[k] = np.bincount(self.event_neuron[events], weights=weights, minlength=self.n_neurons)
        return total

    def mean_count(self) -> np.ndarray:
        """Return each neuron's mean spike count per scored bin, (n_neurons,); NaN without scored bins."""
        total = self.counts(scored_only=True).sum(axis=0)
        return total / self.n_scored_bins if self.n_scored_bins else np.full(self.n_neurons, np.nan)

    @cached_property
    def repeat_groups(self) -> np.ndarray:
        """Return for each trial the number of its group of repeats, (n_trials,) int64, or -1 where it has none.

        Trials of one named condition repeat each other if there are at least two and they start at the same bin of their original trials.
        Trials without a condition do if there are at least five.
        """
        kinds = np.stack([np.asarray(self.conditions), np.asarray(self.trial_bin)], axis=1)
        found, kind, n_members = np.unique(kinds, axis=0, return_inverse=True, return_counts=True)
        is_group = n_members >= np.where(found[:, 0] >= 0, 2, MIN_UNNAMED_REPEATS)
        number = np.where(is_group, np.cumsum(is_group) - 1, -1)
        return number[kind.ravel()].astype(np.int64)

    def multi_spike_bins(self) -> int:
        """Return how many (bin, neuron) entries hold more than one spike; above 0 a Bernoulli emission would lose spikes."""
        return 0 if self.event_count is None else int(np.count_nonzero(self.event_count > 1))

    def one_per_bin(self) -> BinnedSpikes:
        """Return the same with several spikes of a neuron in one bin counted as one."""
        return replace(self, event_count=None)

    def info(self) -> DataInfo:
        """Return what a model may know of these data before it sees them."""
        return DataInfo(
            n_neurons=self.n_neurons,
            n_trials=self.n_trials,
            dt_ms=self.dt_ms,
            bins_per_trial=self.bins_per_trial,
            signals={name: signal.n_channels for name, signal in self.source_signals.items()},
            populations=tuple(self.neurons.populations.tolist()),
            n_conditions=len(self.condition_names),
            mean_count=self.mean_count(),
            has_repeats=bool((self.repeat_groups >= 0).any()),
            n_scored_bins=self.n_scored_bins,
            start_bins=tuple(np.unique(np.asarray(self.trial_bin)).tolist()),
        )

    # -- signals ------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def signals(self) -> BinnedSignals:
        """Return each signal over all bins, (n_bins_total, n_channels) float64, resampled when first asked for."""
        return BinnedSignals(self)

    def signal_values(self, name: str, first_bin: int, stop_bin: int) -> np.ndarray:
        """Return a signal in global bins first_bin .. stop_bin - 1, (n_bins, n_channels) float64; see `resample`."""
        signal = self._signal(name)
        parts = [np.zeros((0, signal.n_channels))]
        trial = max(0, int(np.searchsorted(self.trial_offset, first_bin, side="right")) - 1)
        while trial < self.n_trials and self.trial_offset[trial] < stop_bin:
            offset = int(self.trial_offset[trial])
            low, high = max(first_bin, offset), min(stop_bin, int(self.trial_offset[trial + 1]))
            parts.append(resample(signal, int(self.start_ns[trial]), self.dt_ns, low - offset, high - low))
            trial += 1
        return np.concatenate(parts)

    def _signal(self, name: str) -> Signal:
        if name not in self.source_signals:
            known = ", ".join(self.source_signals) or "none"
            raise UnknownNameError(f"no signal {name!r}{did_you_mean(name, self.source_signals)} Signals: {known}.")
        return self.source_signals[name]

    # -- reading ------------------------------------------------------------------------------------------------------------------------

    def chunk(self, trials: Sequence[int], first_bin: int, n_bins: int, *, is_first: bool | None = None) -> SpikeChunk:
        """Return bins first_bin .. first_bin + n_bins - 1 of some trials; bins past a trial's end are masked and empty.

        `is_first` (default: first_bin == 0) says whether state starts fresh.
        """
        trials = np.asarray(trials, dtype=np.int64)
        bins = first_bin + np.arange(n_bins)
        signals = {}
        for name, signal in self.source_signals.items():
            signals[name] = np.zeros((len(trials), n_bins, signal.n_channels))
            for row, k in enumerate(trials):
                n_inside = int(min(first_bin + n_bins, self.bins_per_trial[k])) - first_bin
                if n_inside > 0:
                    at = int(self.trial_offset[k]) + first_bin
                    signals[name][row, :n_inside] = self.signals.values_between(name, at, at + n_inside)
        return SpikeChunk(
            trial=trials,
            first_bin=first_bin,
            n_bins=n_bins,
            is_first=first_bin == 0 if is_first is None else is_first,
            dt_ms=self.dt_ms,
            n_neurons=self.n_neurons,
            row_pointer=self._pointers(trials, first_bin, n_bins),
            event_neuron=self.event_neuron,
            event_count=self.event_count,
            mask_numpy=(bins < self.bins_per_trial[trials][:, None]) & (bins >= self.warmup_bins[trials][:, None]),
            condition=self.conditions[trials],
            start_s=(self.start_ns[trials] + first_bin * self.dt_ns) / NS_PER_S,
            trial_bin=self.trial_bin[trials] + first_bin,
            signal_values=signals,
            source=self,
        )

    def _pointers(self, trials: np.ndarray, first_bin: int, n_bins: int) -> np.ndarray:
        """Return the row pointers of bins of some trials, (n_trials, n_bins + 1); bins past a trial's end are empty."""
        columns = np.minimum(first_bin + np.arange(n_bins + 1), self.bins_per_trial[trials][:, None])
        return self.row_pointer[self.trial_offset[trials][:, None] + columns]

    def chunks(
        self,
        n_bins: int,
        *,
        trials: Sequence[int] | None = None,
        batch_trials: int = 1,
        carry: bool = False,
        shuffle: np.random.Generator | None = None,
    ) -> Iterator[SpikeChunk]:
        """Yield chunks of at most `n_bins` bins and `batch_trials` trials, covering every bin of the trials once.

        Trials of a batch may differ in length. With `carry`, the chunks of one batch of trials follow each other in time, so that state can
        be handed on, and `is_first` is True only for the first; without, every chunk starts fresh. `shuffle` permutes the trials, and
        without `carry` all chunks.
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
            yield self.chunk(batch, first, length, is_first=first == 0 or not carry)

    def dense_numpy(
        self, *, trials: Sequence[int] | None = None, bins: range | None = None, dtype: str = "float32", max_gb: float = 1.0
    ) -> np.ndarray:
        """Return counts (n_trials, n_bins, n_neurons), zeros past the end of a short trial. `bins`: consecutive bins of the trials.

        Raises
        ------
        DenseTooLargeError
            If the array would need more than `max_gb` GB.
        """
        index = np.arange(self.n_trials) if trials is None else np.asarray(trials, dtype=np.int64)
        span = range(int(self.bins_per_trial[index].max(initial=0))) if bins is None else bins
        if span.step != 1 or span.start < 0:
            raise InvalidInputError(f"bins={span}; expected consecutive bins, such as range(0, 100).")
        needed = dense_gb(len(index) * len(span), self.n_neurons, dtype)
        if needed > max_gb:
            raise DenseTooLargeError(
                f"dense spikes would need {needed:.1f} GB ({len(index) * len(span)} bins x {self.n_neurons} neurons, {dtype}); "
                f"the limit is {max_gb:.1f} GB. Iterate `binned.chunks(n_bins=10000)`, choose trials or bins, or raise `max_gb`."
            )
        pointers = self._pointers(index, span.start, len(span))
        return densify(pointers, self.event_neuron, self.event_count, self.n_neurons, dtype=dtype)

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

    # -- cutting ------------------------------------------------------------------------------------------------------------------------

    def pieces(self, cuts: Sequence[Piece]) -> BinnedSpikes:
        """Return new trials cut from these: one per (trial, first bin, stop bin, warm-up bins), warm-up counted from the first bin.

        What is left of the trial's own warm-up stays warm-up.
        """
        trial, first, stop, warmup = np.array(cuts, dtype=np.int64).reshape(-1, 4).T
        if ((trial < 0) | (trial >= self.n_trials)).any():
            raise InvalidInputError(f"trial {trial.max()} asked for; trials are counted from 0 to {self.n_trials - 1}.")
        length = stop - first
        if ((first < 0) | (length < 0) | (stop > self.bins_per_trial[trial])).any():
            raise InvalidInputError("a piece reaches out of its trial.")
        begin = self.trial_offset[trial] + first
        low, high = self.row_pointer[begin], self.row_pointer[begin + length]
        shift = np.cumsum(high - low) - (high - low) - low  # of each piece's events
        pointer = [self.row_pointer[b : b + n] + move for b, n, move in zip(begin, length, shift, strict=True)]
        events = [slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        count = self.event_count
        return BinnedSpikes(
            dt_ns=self.dt_ns,
            bins_per_trial=length,
            warmup_bins=np.minimum(np.maximum(warmup, self.warmup_bins[trial] - first), length),
            row_pointer=np.concatenate([*pointer, [int((high - low).sum())]]).astype(np.int64),
            event_neuron=np.concatenate([self.event_neuron[:0], *(self.event_neuron[part] for part in events)]),
            event_count=None if count is None else np.concatenate([count[:0], *(count[part] for part in events)]),
            neurons=self.neurons,
            conditions=self.conditions[trial],
            condition_names=self.condition_names,
            start_ns=self.start_ns[trial] + first * self.dt_ns,
            trial_index=self.trial_index[trial],
            trial_bin=self.trial_bin[trial] + first,
            source_signals=self.source_signals,
        )

    def select_trials(self, index: Sequence[int]) -> BinnedSpikes:
        """Return some trials, in the given order."""
        return self.pieces([(int(k), 0, int(self.bins_per_trial[k]), int(self.warmup_bins[k])) for k in index])

    def select_bins(self, trial: int, start: int, stop: int, *, warmup_bins: int = 0) -> BinnedSpikes:
        """Return bins start .. stop - 1 of one trial as a trial of its own, the first `warmup_bins` of them as warm-up."""
        return self.pieces([(trial, start, stop, warmup_bins)])


class BinnedSignals(Mapping):
    """The signals of binned spikes by name, each (n_bins_total, n_channels) float64, resampled at first use and then kept."""

    def __init__(self, binned: BinnedSpikes) -> None:
        self._binned = binned
        self._whole: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._whole:
            self._whole[name] = self._binned.signal_values(name, 0, self._binned.n_bins_total)
        return self._whole[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._binned.source_signals)

    def __len__(self) -> int:
        return len(self._binned.source_signals)

    def values_between(self, name: str, first_bin: int, stop_bin: int) -> np.ndarray:
        """Return global bins first_bin .. stop_bin - 1 of a signal; large signals are resampled anew, not kept."""
        n_bytes = 8 * self._binned.n_bins_total * self._binned.source_signals[name].n_channels
        if name in self._whole or n_bytes <= _CACHED_SIGNAL_BYTES:
            return self[name][first_bin:stop_bin]
        return self._binned.signal_values(name, first_bin, stop_bin)


def dense_gb(n_bins: int, n_neurons: int, dtype: str = "float32") -> float:
    """Return the size of a dense array of counts, GB."""
    return n_bins * n_neurons * np.dtype(dtype).itemsize / 1e9
