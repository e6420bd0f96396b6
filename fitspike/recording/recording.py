"""A recording: spike times in integer nanoseconds with their neuron, neurons, trials, signals and events. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import Problems, RecordingError, UnknownNameError, counted, did_you_mean
from fitspike.recording import cutting, making
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable
from fitspike.recording.times import times_to_ns
from fitspike.units import NS_PER_MS, NS_PER_S, ns_to_s

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.checks import DataReport

__all__ = ["NeuronTable", "Recording", "RecordingSource", "Signal", "TrialTable", "times_to_ns"]

_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Recording:
    """Spike trains of a population with everything recorded beside them.

    spike_times_ns (n_spikes,) int64, sorted, ties sorted by neuron; spike_neuron (n_spikes,), row of `neurons`. For binned data
    `spike_count` (n_spikes,) gives how many spikes the bin that starts at that time holds, and `bin_width_ns` its width. `events` maps
    names to event times (n_events,) int64 ns. Spikes outside every trial are kept, reported by `checks()` and never binned.
    """

    spike_times_ns: np.ndarray
    spike_neuron: np.ndarray
    neurons: NeuronTable
    trials: TrialTable
    signals: Mapping[str, Signal] = field(default_factory=dict)
    source: RecordingSource = field(default_factory=RecordingSource)
    spike_count: np.ndarray | None = None
    bin_width_ns: int | None = None
    events: Mapping[str, np.ndarray] = field(default_factory=dict)

    from_arrays = classmethod(making.from_arrays)
    from_trains = classmethod(making.from_trains)
    from_trials = classmethod(making.from_trials)
    from_counts = classmethod(making.from_counts)
    concatenate = classmethod(making.concatenate)

    select = cutting.select
    with_trials = cutting.with_trials
    align = cutting.align
    attach = cutting.attach

    def __post_init__(self) -> None:
        problems = Problems("inconsistent recording")
        times, neuron = self.spike_times_ns, self.spike_neuron
        if times.dtype != np.int64 or times.ndim != 1:
            problems.add(f"spike_times_ns has type {times.dtype} and shape {times.shape}; expected int64, one dimension.")
        elif neuron.shape != times.shape or neuron.dtype.kind != "u":
            problems.add(
                f"{times.shape} spike times, but neuron rows of shape {neuron.shape} and type {neuron.dtype}; expected uint16 or uint32."
            )
        else:
            if times.size and int(neuron.max()) >= len(self.neurons):
                problems.add(f"a spike belongs to neuron {int(neuron.max())}, but there are {len(self.neurons)} neurons.")
            if not _is_sorted(times, neuron):
                problems.add("spikes are not sorted by time, then neuron. Use Recording.from_arrays, which sorts.")
        if (self.spike_count is None) != (self.bin_width_ns is None):
            problems.add("binned data need both spike_count and bin_width_ns.")
        elif self.spike_count is not None and (self.spike_count.shape != times.shape or (self.spike_count < 1).any()):
            problems.add("spike_count must give at least one spike for every entry.")
        problems.raise_if_any(RecordingError)

    @property
    def n_neurons(self) -> int:
        """Return the number of neurons, silent ones included."""
        return len(self.neurons)

    @property
    def n_trials(self) -> int:
        """Return the number of trials."""
        return len(self.trials)

    @property
    def n_spikes(self) -> int:
        """Return the number of spikes, those outside trials included."""
        return len(self.spike_times_ns) if self.spike_count is None else int(self.spike_count.sum())

    @property
    def duration_s(self) -> float:
        """Return the summed length of all trials, s."""
        return float(self.trials.duration_ns.sum() / NS_PER_S)

    @property
    def is_binned(self) -> bool:
        """Return whether this holds counts in native bins rather than spike times."""
        return self.bin_width_ns is not None

    @property
    def extent_ns(self) -> tuple[int, int]:
        """Return the earliest and latest time of any trial, spike or event, ns."""
        lows = [self.trials.start_ns, self.spike_times_ns[:1], *self.events.values()]
        highs = [self.trials.stop_ns, self.spike_times_ns[-1:], *self.events.values()]
        return (
            min((int(values.min()) for values in lows if values.size), default=0),
            max((int(values.max()) for values in highs if values.size), default=0),
        )

    @cached_property
    def is_in_trial(self) -> np.ndarray:
        """Return which spikes lie in any trial, (n_spikes,) bool."""
        return cutting.lies_inside(self.spike_times_ns, self.trials)

    @property
    def rates_hz(self) -> np.ndarray:
        """Return each neuron's spikes inside trials divided by the time that trials cover, (n_neurons,), Hz; NaN without such time."""
        seconds = cutting.covered_ns(self.trials) / NS_PER_S
        weights = None if self.spike_count is None else self.spike_count[self.is_in_trial]
        counts = np.bincount(self.spike_neuron[self.is_in_trial], weights=weights, minlength=self.n_neurons)
        return counts / seconds if seconds > 0 else np.full(self.n_neurons, np.nan)

    def train_s(self, neuron: int | str) -> np.ndarray:
        """Return one neuron's spike times, s; `neuron` is a row or an id."""
        row = int(self.rows([neuron])[0])
        return ns_to_s(self.spike_times_ns[self.spike_neuron == row])

    def rows(self, neurons: object) -> np.ndarray:
        """Return the rows (int64) of neurons given as rows, as a mask (n_neurons,), or as ids (text).

        Raises
        ------
        RecordingError, UnknownNameError
            If a row is out of range, a mask has another length, or an id does not exist.
        """
        chosen = np.asarray(neurons)
        if chosen.dtype == bool:
            if chosen.shape != (self.n_neurons,):
                raise RecordingError(f"a neuron mask has shape {chosen.shape}; expected ({self.n_neurons},).")
            return np.flatnonzero(chosen)
        chosen = np.atleast_1d(chosen)
        if chosen.dtype.kind in "iu":
            if chosen.size and (chosen.min() < 0 or chosen.max() >= self.n_neurons):
                worst = chosen.min() if chosen.min() < 0 else chosen.max()
                raise RecordingError(f"neuron row {worst} asked for; rows go from 0 to {self.n_neurons - 1}. Ids are given as text.")
            return chosen.astype(np.int64)
        row_of = {name: row for row, name in enumerate(self.neurons.ids.tolist())}
        names = [str(name) for name in chosen.tolist()]
        if missing := [name for name in names if name not in row_of]:
            listed = f" Ids: {', '.join(list(row_of)[:8])}{', ...' if len(row_of) > 8 else '.'}"
            others = f" ({len(missing)} of {len(names)} ids are unknown.)" if len(missing) > 1 else listed
            raise UnknownNameError(f"no neuron with id {missing[0]!r}{did_you_mean(missing[0], row_of)}{others}")
        return np.array([row_of[name] for name in names], dtype=np.int64)

    def bin(self, dt_ms: float | None = None) -> BinnedSpikes:
        """Return the recording in bins of `dt_ms` (default: the native width of binned data, else 1 ms), by integer arithmetic.

        A trial's bins start at its start; time past the last whole bin is left out.

        Raises
        ------
        BinWidthError
            If `dt_ms` is no whole number of nanoseconds, or no whole multiple of the native bin width.
        RecordingError
            If a signal does not cover the trials, or is NaN inside them.
        """
        from fitspike.recording.binning import bin_recording

        return bin_recording(self, dt_ms)

    def checks(self) -> DataReport:
        """Return the data report: what is unusual in this recording. Nothing is repaired."""
        from fitspike.recording.checks import check_recording

        return check_recording(self)

    def fingerprint(self) -> str:
        """Return the SHA-256 of spikes, tables, signals and events: equal for equal contents, whatever file they came from."""
        from fitspike.recording.npz_io import fingerprint

        return fingerprint(self)

    def to_neo(self) -> Any:
        """Return the recording as a neo.Block, one segment per trial."""
        from fitspike.recording.neo_reader import to_neo

        return to_neo(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the native format and return its path: a memory-mappable folder X.fitspike, or one file X.fitspike.npz.

        Raises
        ------
        RecordingError
            If the path exists and `overwrite` is False.
        """
        from fitspike.recording.npz_io import save_recording

        return save_recording(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        kind = f" as counts in {self.bin_width_ns / NS_PER_MS:g} ms bins" if self.bin_width_ns is not None else ""
        size = f"{counted(self.n_neurons, 'neuron')}, {counted(self.n_trials, 'trial')}, {self.duration_s:.6g} s"
        return f"<Recording: {size}, {counted(self.n_spikes, 'spike')}{kind}>"


def _is_sorted(times: np.ndarray, neuron: np.ndarray) -> bool:
    """Return whether spikes are sorted by time, ties by neuron; in blocks, so that a memory-mapped recording stays on disk."""
    for at in range(0, len(times), _BLOCK):
        part, rows = times[at : at + _BLOCK + 1], neuron[at : at + _BLOCK + 1]
        if not bool(((part[1:] > part[:-1]) | ((part[1:] == part[:-1]) & (rows[1:] >= rows[:-1]))).all()):
            return False
    return True
