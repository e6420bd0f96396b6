"""A recording: spike times in integer nanoseconds with their neuron, neurons, trials, signals and events. Immutable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import Problems, RecordingError, UnknownNameError, did_you_mean
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable
from fitspike.units import NS_PER_MS, NS_PER_S, bin_width_ns, ns_to_s, s_to_ns, time_unit_ns

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.checks import DataReport

__all__ = ["NeuronTable", "Recording", "RecordingSource", "Signal", "TrialTable", "times_to_ns"]


def times_to_ns(times: object, *, unit: str = "s", sampling_rate_hz: float | None = None) -> np.ndarray:
    """Return times as int64 nanoseconds, rounded to the nearest; with a sampling rate, `times` are whole sampling points.

    A rational rate is used exactly: sample n of a 30 kHz recording lies at round(n * 10**9 / 30000) ns, hence in bin n // 30 of 1 ms.

    Raises
    ------
    RecordingError
        If a time is NaN or infinite, or beyond the 292 years that int64 nanoseconds can hold.
    """
    array = np.asarray(times)
    if array.dtype.kind not in "iuf":
        raise RecordingError(f"spike times are of type {array.dtype}; expected numbers.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        n_bad = np.count_nonzero(~np.isfinite(array))
        raise RecordingError(f"{n_bad} of {array.size} spike times are NaN or infinite. Remove them before loading.")
    scale = time_unit_ns(unit) if sampling_rate_hz is None else NS_PER_S / sampling_rate_hz
    largest = float(np.abs(array).max()) if array.size else 0.0
    if largest * scale > 9e18:
        raise RecordingError(f"a spike time of {largest} {unit} does not fit int64 nanoseconds. Is the time unit right?")
    if sampling_rate_hz is None:
        if array.dtype.kind in "iu" and scale == int(scale):
            return array.astype(np.int64) * int(scale)
        return np.rint(array.astype(np.float64) * scale).astype(np.int64)
    if float(sampling_rate_hz).is_integer() and (array.dtype.kind in "iu" or (array == np.rint(array)).all()):
        samples, rate = array.astype(np.int64), int(sampling_rate_hz)
        seconds, rest = np.divmod(samples, rate)
        return seconds * NS_PER_S + (2 * rest * NS_PER_S + rate) // (2 * rate)
    return np.rint(array.astype(np.float64) * scale).astype(np.int64)


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

    def __post_init__(self) -> None:
        problems = Problems("inconsistent recording")
        times, neuron = self.spike_times_ns, self.spike_neuron
        if times.dtype != np.int64 or times.ndim != 1:
            problems.add(f"spike_times_ns has type {times.dtype} and shape {times.shape}; expected int64, one dimension.")
        elif times.shape != neuron.shape:
            problems.add(f"{times.shape[0]} spike times but {neuron.shape} neuron indices; expected one neuron per spike.")
        elif times.size:
            if int(neuron.max()) >= len(self.neurons):
                problems.add(f"a spike belongs to neuron {int(neuron.max())}, but there are {len(self.neurons)} neurons.")
            step = np.diff(times)
            if (step < 0).any() or ((step == 0) & (np.diff(neuron.astype(np.int64)) < 0)).any():
                problems.add("spikes are not sorted by time, then neuron. Use Recording.from_arrays, which sorts.")
        if (self.spike_count is None) != (self.bin_width_ns is None):
            problems.add("binned data need both spike_count and bin_width_ns.")
        elif self.spike_count is not None and (self.spike_count.shape != times.shape or (self.spike_count < 1).any()):
            problems.add("spike_count must give at least one spike for every entry.")
        problems.raise_if_any(RecordingError)

    # -- making one -----------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        times: object,
        neuron_ids: object,
        *,
        unit: str = "s",
        sampling_rate_hz: float | None = None,
        ids: Sequence[object] | None = None,
        trials: TrialTable | None = None,
        start_s: float | None = None,
        stop_s: float | None = None,
        neurons: NeuronTable | None = None,
        signals: Mapping[str, Signal] | None = None,
        events: Mapping[str, np.ndarray] | None = None,
        source: RecordingSource | None = None,
    ) -> Recording:
        """Return a recording from flat arrays of spike times and neuron ids, in any order.

        `ids` (or a ready `neurons` table) lists all neurons, also silent ones; by default those that occur, sorted. Without `trials` the
        recording is one trial from `start_s` (default: 0, or the first spike if that is negative) to `stop_s` (default: just past the
        last spike).
        """
        times_ns = times_to_ns(times, unit=unit, sampling_rate_hz=sampling_rate_hz).ravel()
        given = np.asarray(neuron_ids).ravel()
        if given.shape != times_ns.shape:
            raise RecordingError(f"{times_ns.size} spike times but {given.size} neuron ids; expected one id per spike.")
        occurring, inverse = np.unique(given, return_inverse=True)
        if neurons is None:
            neurons = NeuronTable.make(occurring if ids is None else np.asarray(ids))
        row_of = {name: row for row, name in enumerate(neurons.ids)}
        names = occurring.astype(str)
        unknown = [name for name in names if name not in row_of]
        if unknown:
            raise RecordingError(f"spikes of unlisted neurons {', '.join(unknown[:5])}. List every neuron in `ids`.")
        rows = np.array([row_of[name] for name in names], dtype=np.int64)
        neuron = rows[inverse] if rows.size else np.zeros(0, np.int64)
        if trials is None:
            trials = cls._one_trial(times_ns, start_s, stop_s)
        return cls._sorted(times_ns, neuron, neurons, trials, signals=signals, events=events, source=source)

    @classmethod
    def from_trains(
        cls,
        trains: Sequence[object] | Mapping[object, object],
        *,
        unit: str = "s",
        sampling_rate_hz: float | None = None,
        **options: Any,
    ) -> Recording:
        """Return a recording from one array of spike times per neuron, a sequence or a mapping from id; options as `from_arrays`."""
        if isinstance(trains, Mapping):
            options.setdefault("ids", list(trains.keys()))
            arrays = [np.asarray(train).ravel() for train in trains.values()]
        else:
            arrays = [np.asarray(train).ravel() for train in trains]
            if options.get("neurons") is None:
                options.setdefault("ids", [str(i) for i in range(len(arrays))])
        neurons = options.get("neurons")
        names = neurons.ids if neurons is not None else np.asarray(options["ids"]).astype(str)
        if len(names) != len(arrays):
            raise RecordingError(f"{len(arrays)} spike trains but {len(names)} neuron ids; expected one id per train.")
        ns = [times_to_ns(a if a.size else np.zeros(0), unit=unit, sampling_rate_hz=sampling_rate_hz) for a in arrays]
        flat = np.concatenate(ns) if ns else np.zeros(0, np.int64)
        return cls.from_arrays(flat, np.repeat(names, [len(a) for a in ns]), unit="ns", **options)

    @classmethod
    def from_trials(
        cls,
        trains: Sequence[Sequence[object]],
        *,
        durations_s: float | Sequence[float],
        conditions: Sequence[object] | None = None,
        trial_columns: Mapping[str, object] | None = None,
        ids: Sequence[object] | None = None,
        unit: str = "s",
        gap_s: float = 1.0,
        source: RecordingSource | None = None,
    ) -> Recording:
        """Return a recording from trains[trial][neuron], times counted from each trial's start; trials are laid end to end with a gap."""
        n_trials = len(trains)
        n_neurons = len(trains[0]) if n_trials else 0
        if odd := [k for k, trial in enumerate(trains) if len(trial) != n_neurons]:
            raise RecordingError(
                f"trial {odd[0]} has {len(trains[odd[0]])} trains, trial 0 has {n_neurons}; expected the same neurons in all."
            )
        durations = np.broadcast_to(s_to_ns(durations_s), (n_trials,))
        starts = np.concatenate([[0], np.cumsum(durations + int(s_to_ns(gap_s)))])[:n_trials].astype(np.int64)
        names = np.asarray([str(i) for i in range(n_neurons)] if ids is None else ids).astype(str)
        times = [
            times_to_ns(np.asarray(train), unit=unit).ravel() + start
            for trial, start in zip(trains, starts, strict=True)
            for train in trial
        ]
        flat = np.concatenate(times) if times else np.zeros(0, np.int64)
        owner = np.repeat(np.tile(names, n_trials), [len(t) for t in times])
        table = TrialTable.make(starts, starts + durations, conditions=conditions, columns=trial_columns)
        return cls.from_arrays(flat, owner, unit="ns", ids=names, trials=table, source=source)

    @classmethod
    def from_counts(
        cls,
        counts: object,
        *,
        dt_ms: float,
        ids: Sequence[object] | None = None,
        neurons: NeuronTable | None = None,
        conditions: Sequence[object] | None = None,
        trial_columns: Mapping[str, object] | None = None,
        signals: Mapping[str, Signal] | None = None,
        source: RecordingSource | None = None,
    ) -> Recording:
        """Return a recording of binned counts: (n_trials, n_bins, n_neurons), (n_bins, n_neurons), or a list of (n_bins_k, n_neurons).

        Trials are laid end to end. `bin()` of such a recording accepts whole multiples of `dt_ms` only.
        """
        width = bin_width_ns(dt_ms)
        blocks = [np.asarray(counts)] if isinstance(counts, np.ndarray) and counts.ndim == 2 else [np.asarray(block) for block in counts]
        n_neurons = blocks[0].shape[1] if blocks else 0
        problems = Problems("counts")
        times, owners, numbers, lengths = [], [], [], []
        start = 0
        for k, block in enumerate(blocks):
            if block.ndim != 2 or block.shape[1] != n_neurons:
                problems.add(f"trial {k} has shape {block.shape}; expected (n_bins, {n_neurons}).")
                continue
            if block.size and (not np.isfinite(block).all() or (block < 0).any() or (block != np.rint(block)).any()):
                problems.add(f"trial {k} holds values that are not whole numbers of spikes (NaN, negative or fractional).")
                continue
            bins, neuron = np.nonzero(block)
            times.append(start + bins.astype(np.int64) * width)
            owners.append(neuron)
            numbers.append(block[bins, neuron].astype(np.int64))
            lengths.append(len(block) * width)
            start += lengths[-1]
        problems.raise_if_any(RecordingError)
        stops = np.cumsum(np.asarray(lengths, dtype=np.int64))
        table = TrialTable.make(stops - np.asarray(lengths, dtype=np.int64), stops, conditions=conditions, columns=trial_columns)
        if neurons is None:
            neurons = NeuronTable.make([str(i) for i in range(n_neurons)] if ids is None else ids)
        flat = [np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in (times, owners, numbers)]
        return cls._sorted(flat[0], flat[1], neurons, table, count=flat[2], bin_width=width, signals=signals, source=source)

    @classmethod
    def concatenate(
        cls, recordings: Sequence[Recording], *, column: str = "file", labels: Sequence[object] | None = None, gap_s: float = 1.0
    ) -> Recording:
        """Return recordings of the same neurons as one, their trials one after another in time, `column` telling them apart.

        Raises
        ------
        RecordingError
            If the recordings do not have the same neurons, signals, or native bin width; the text lists every difference.
        """
        if not recordings:
            raise RecordingError("nothing to join: give at least one recording.")
        first = recordings[0]
        problems = Problems("these recordings cannot be joined")
        for number, other in enumerate(recordings[1:], start=1):
            if not np.array_equal(other.neurons.ids, first.neurons.ids):
                problems.add(f"recording {number} has other neurons ({other.n_neurons}) than recording 0 ({first.n_neurons}).")
            if other.bin_width_ns != first.bin_width_ns:
                problems.add(f"recording {number} has native bins of {other.bin_width_ns} ns, recording 0 of {first.bin_width_ns} ns.")
            if set(other.signals) != set(first.signals):
                problems.add(f"recording {number} has signals {sorted(other.signals)}, recording 0 {sorted(first.signals)}.")
            for name in set(other.signals) & set(first.signals):
                if other.signals[name].sampling_rate_hz != first.signals[name].sampling_rate_hz:
                    problems.add(f"signal {name!r} has another sampling rate in recording {number}.")
        problems.raise_if_any(RecordingError)
        names = [str(i) for i in range(len(recordings))] if labels is None else [str(label) for label in labels]
        gap, shift = int(s_to_ns(gap_s)), 0
        parts: dict[str, list] = {key: [] for key in ("times", "neuron", "count", "start", "stop", "condition", "warmup", "file")}
        events: dict[str, list] = {}
        shifts = []
        for recording, name in zip(recordings, names, strict=True):
            low = int(recording.trials.start_ns.min()) if recording.n_trials else 0
            move = shift - low if shifts else 0
            shifts.append(move)
            parts["times"].append(recording.spike_times_ns + move)
            parts["neuron"].append(recording.spike_neuron)
            if recording.spike_count is not None:
                parts["count"].append(recording.spike_count)
            parts["start"].append(recording.trials.start_ns + move)
            parts["stop"].append(recording.trials.stop_ns + move)
            parts["condition"].append(recording.trials.conditions)
            parts["warmup"].append(recording.trials.warmup_ns)
            parts["file"].append(np.full(recording.n_trials, name))
            for event, at in recording.events.items():
                events.setdefault(event, []).append(at + move)
            stop = int(recording.trials.stop_ns.max()) if recording.n_trials else low
            shift = stop + move + gap
        shared = set.intersection(*(set(r.trials.columns) for r in recordings)) - {column}
        columns = {name: np.concatenate([r.trials.columns[name] for r in recordings]) for name in sorted(shared)}
        columns[column] = np.concatenate(parts["file"])
        table = TrialTable.make(
            np.concatenate(parts["start"]),
            np.concatenate(parts["stop"]),
            conditions=np.concatenate(parts["condition"]),
            columns=columns,
            warmup_ns=np.concatenate(parts["warmup"]),
        )
        source = RecordingSource(
            path="; ".join(r.source.path for r in recordings),
            sha256=" ".join(r.source.sha256 for r in recordings),
            reader=first.source.reader,
            reader_version=first.source.reader_version,
            notes=tuple(dict.fromkeys(note for r in recordings for note in r.source.notes)),
        )
        signals = {name: _join_signals([r.signals[name] for r in recordings], shifts) for name in first.signals}
        return cls._sorted(
            np.concatenate(parts["times"]),
            np.concatenate(parts["neuron"]),
            first.neurons,
            table,
            count=np.concatenate(parts["count"]) if parts["count"] else None,
            bin_width=first.bin_width_ns,
            signals=signals,
            events={name: np.concatenate(at) for name, at in events.items()},
            source=source,
        )

    @staticmethod
    def _one_trial(times_ns: np.ndarray, start_s: float | None, stop_s: float | None) -> TrialTable:
        start = int(s_to_ns(start_s)) if start_s is not None else min(0, int(times_ns.min())) if times_ns.size else 0
        # Unless stated, the end is the first whole millisecond after the last spike, so that 1 ms bins hold every spike.
        stop = (
            int(s_to_ns(stop_s))
            if stop_s is not None
            else start - (start - int(times_ns.max()) - 1) // NS_PER_MS * NS_PER_MS
            if times_ns.size
            else start
        )
        return TrialTable.make([start], [max(stop, start)] if stop_s is None else [stop])

    @classmethod
    def _sorted(
        cls,
        times_ns: np.ndarray,
        neuron: np.ndarray,
        neurons: NeuronTable,
        trials: TrialTable,
        *,
        count: np.ndarray | None = None,
        bin_width: int | None = None,
        signals: Mapping[str, Signal] | None = None,
        events: Mapping[str, np.ndarray] | None = None,
        source: RecordingSource | None = None,
    ) -> Recording:
        index_type = np.uint16 if len(neurons) <= np.iinfo(np.uint16).max else np.uint32
        is_sorted = bool((times_ns[1:] > times_ns[:-1]).all())
        order = slice(None) if is_sorted else np.lexsort((neuron, times_ns))
        return cls(
            np.ascontiguousarray(times_ns[order], dtype=np.int64),
            neuron[order].astype(index_type),
            neurons,
            trials,
            dict(signals or {}),
            source or RecordingSource(),
            None if count is None else count[order],
            bin_width,
            {name: np.sort(np.asarray(at, dtype=np.int64)) for name, at in (events or {}).items()},
        )

    # -- what it is -----------------------------------------------------------------------------------------------------------------

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
        return int(self.spike_count.sum()) if self.spike_count is not None else len(self.spike_times_ns)

    @property
    def duration_s(self) -> float:
        """Return the summed length of all trials, s."""
        return float(self.trials.duration_ns.sum() / NS_PER_S)

    @property
    def is_binned(self) -> bool:
        """Return whether this holds counts in native bins rather than spike times."""
        return self.bin_width_ns is not None

    @property
    def rates_hz(self) -> np.ndarray:
        """Return each neuron's spikes divided by `duration_s`, (n_neurons,), Hz; NaN without duration."""
        counts = np.bincount(self.spike_neuron, weights=self.spike_count, minlength=self.n_neurons)
        return counts / self.duration_s if self.duration_s > 0 else np.full(self.n_neurons, np.nan)

    def train_s(self, neuron: int | str) -> np.ndarray:
        """Return one neuron's spike times, s; `neuron` is a row or an id."""
        row = int(self._rows([neuron])[0])
        return ns_to_s(self.spike_times_ns[self.spike_neuron == row])

    def __repr__(self) -> str:
        kind = f"counts in {self.bin_width_ns / NS_PER_MS:g} ms bins" if self.is_binned else "spikes"
        return f"<Recording: {self.n_neurons} neurons, {self.n_trials} trials, {self.duration_s:.6g} s, {self.n_spikes} {kind}>"

    # -- cutting and adding ---------------------------------------------------------------------------------------------------------

    def _rows(self, neurons: object) -> np.ndarray:
        chosen = np.asarray(neurons)
        if chosen.dtype == bool:
            if chosen.shape != (self.n_neurons,):
                raise RecordingError(f"a neuron mask of shape {chosen.shape} for {self.n_neurons} neurons.")
            return np.flatnonzero(chosen)
        if chosen.dtype.kind in "iu":
            if chosen.size and (chosen.min() < -self.n_neurons or chosen.max() >= self.n_neurons):
                raise RecordingError(f"neuron row {chosen.max()} asked for; there are {self.n_neurons} neurons. Ids are given as text.")
            return chosen % max(self.n_neurons, 1)
        row_of = {name: row for row, name in enumerate(self.neurons.ids)}
        missing = [str(name) for name in chosen.ravel() if str(name) not in row_of]
        if missing:
            raise UnknownNameError(
                f"no neuron with id {missing[0]!r}{did_you_mean(missing[0], row_of)} ({len(missing)} of {chosen.size} unknown)."
            )
        return np.array([row_of[str(name)] for name in chosen.ravel()], dtype=np.int64)

    def select(
        self,
        *,
        neurons: object | None = None,
        where: str | Iterable[str] | None = None,
        trials: object | None = None,
        conditions: Iterable[object] | None = None,
        start_s: float | None = None,
        stop_s: float | None = None,
    ) -> Recording:
        """Return the part of the recording that meets every criterion.

        Parameters
        ----------
        neurons : rows, a mask, or ids (as text), in the order wanted
        where : one or several comparisons with a neuron column, such as "contamination < 0.05" or "quality == good"
        trials : rows or a mask
        conditions : condition labels to keep
        start_s, stop_s : time range, s; trials are cut to it, trials outside it dropped
        """
        from fitspike.recording.where import neuron_mask

        rows = np.arange(self.n_neurons) if neurons is None else self._rows(neurons)
        if where is not None:
            rows = rows[neuron_mask(self.neurons, [where] if isinstance(where, str) else list(where))[rows]]
        if rows.size == 0:
            raise RecordingError(f"no neuron is left of {self.n_neurons}. Loosen the selection{f' {where!r}' if where else ''}.")
        keep = np.ones(self.n_trials, dtype=bool)
        if trials is not None:
            index = np.asarray(trials)
            keep = np.zeros(self.n_trials, dtype=bool)
            try:
                keep[index] = True
            except IndexError as error:
                raise RecordingError(f"trials {index} asked for; there are {self.n_trials}, counted from 0.") from error
        if conditions is not None:
            wanted = [str(c) for c in conditions]
            if missing := sorted(set(wanted) - set(self.trials.conditions)):
                raise UnknownNameError(
                    f"no trial has condition {missing[0]!r}. Conditions: {', '.join(sorted(set(self.trials.conditions)))}."
                )
            keep &= np.isin(self.trials.conditions, wanted)
        table = self.trials.select(np.flatnonzero(keep))
        if start_s is not None or stop_s is not None:
            table = _cut_trials(table, start_s, stop_s, self.bin_width_ns)
        if len(table) == 0:
            raise RecordingError(f"no trial is left of {self.n_trials}. Loosen the selection of trials, conditions or time range.")
        return self._with_rows(rows)._with_trials(table)

    def _with_rows(self, rows: np.ndarray) -> Recording:
        if np.array_equal(rows, np.arange(self.n_neurons)):
            return self
        new_row = np.full(self.n_neurons, -1, dtype=np.int64)
        new_row[rows] = np.arange(len(rows))
        mine = new_row[self.spike_neuron]
        keep = mine >= 0
        count = None if self.spike_count is None else self.spike_count[keep]
        return self._sorted(
            self.spike_times_ns[keep],
            mine[keep],
            self.neurons.select(rows),
            self.trials,
            count=count,
            bin_width=self.bin_width_ns,
            signals=self.signals,
            events=self.events,
            source=self.source,
        )

    def _with_trials(self, table: TrialTable) -> Recording:
        inside = _inside(self.spike_times_ns, table)
        count = None if self.spike_count is None else self.spike_count[inside]
        return replace(
            self, spike_times_ns=self.spike_times_ns[inside], spike_neuron=self.spike_neuron[inside], spike_count=count, trials=table
        )

    def with_trials(self, table: TrialTable) -> Recording:
        """Return the recording cut to other trials (windows on the same clock); spikes outside them are dropped."""
        return self._with_trials(table)

    def align(self, events: str | object, window_s: tuple[float, float], *, conditions: Iterable[object] | None = None) -> Recording:
        """Return the recording cut into one trial per event, from event + window_s[0] to event + window_s[1].

        Parameters
        ----------
        events : name of recorded events, or event times, s
        window_s : start and stop relative to the event, s
        conditions : one label per event, optional

        Raises
        ------
        UnknownNameError, RecordingError
            If there are no such events, the window is empty, or no window lies inside the recording. Windows that reach out of the
            recorded time are left out and counted in the source's notes.
        """
        if isinstance(events, str):
            if events not in self.events:
                known = ", ".join(self.events) or "none; attach them first"
                raise UnknownNameError(f"no events {events!r}{did_you_mean(events, self.events)} Events: {known}.")
            at = self.events[events]
        else:
            at = s_to_ns(np.asarray(events, dtype=np.float64))
        low, high = (int(s_to_ns(value)) for value in window_s)
        if high <= low:
            raise RecordingError(f"the window {window_s} s is empty. Give (before, after) with before < after, such as (-0.2, 0.8).")
        width = self.bin_width_ns
        start = at + low if width is None else self._to_bin_edge(at + low)
        stop = start + (high - low if width is None else max(width, round((high - low) / width) * width))
        labels = None if conditions is None else np.asarray(list(conditions)).astype(str)
        if labels is not None and len(labels) != len(at):
            raise RecordingError(f"{len(labels)} condition labels for {len(at)} events; expected one each.")
        fits = np.zeros(len(at), dtype=bool)
        for trial_start, trial_stop in zip(self.trials.start_ns, self.trials.stop_ns, strict=True):
            fits |= (start >= trial_start) & (stop <= trial_stop)
        if not fits.any():
            raise RecordingError(f"none of {len(at)} windows of {window_s} s around the events lies inside the recorded time.")
        table = TrialTable.make(
            start[fits], stop[fits], conditions=None if labels is None else labels[fits], columns={"event": np.flatnonzero(fits)}
        )
        aligned = self._with_trials(table)
        if fits.all():
            return aligned
        note = f"align: {np.count_nonzero(~fits)} of {len(at)} windows reach out of the recorded time and were left out."
        return replace(aligned, source=replace(self.source, notes=(*self.source.notes, note)))

    def _to_bin_edge(self, at_ns: np.ndarray) -> np.ndarray:
        origin, width = int(self.trials.start_ns.min()), self.bin_width_ns
        return origin + np.rint((at_ns - origin) / width).astype(np.int64) * width

    def attach(
        self,
        *,
        signals: Mapping[str, Signal] | None = None,
        events: Mapping[str, object] | None = None,
        conditions: Sequence[object] | None = None,
        trial_columns: Mapping[str, object] | None = None,
        neuron_columns: Mapping[str, object] | None = None,
    ) -> Recording:
        """Return the recording with signals, events (s), trial conditions, trial or neuron columns added or replaced."""
        trials = self.trials
        if conditions is not None or trial_columns is not None:
            trials = TrialTable.make(
                trials.start_ns,
                trials.stop_ns,
                conditions=trials.conditions if conditions is None else np.asarray(conditions),
                columns={**trials.columns, **(trial_columns or {})},
                warmup_ns=trials.warmup_ns,
            )
        neurons = self.neurons if neuron_columns is None else self.neurons.with_columns(neuron_columns)
        at = {name: np.sort(s_to_ns(np.asarray(times, dtype=np.float64))) for name, times in (events or {}).items()}
        return replace(self, signals={**self.signals, **(signals or {})}, events={**self.events, **at}, trials=trials, neurons=neurons)

    # -- using it -------------------------------------------------------------------------------------------------------------------

    def bin(self, dt_ms: float | None = None) -> BinnedSpikes:
        """Return the recording in bins of `dt_ms` (default: the native width of binned data, else 1 ms), by integer arithmetic.

        A trial's bins start at its start; time past the last whole bin is left out.

        Raises
        ------
        BinWidthError
            If `dt_ms` is not a whole number of nanoseconds, or no whole multiple of the native bin width.
        """
        from fitspike.recording.binned import bin_recording

        return bin_recording(self, dt_ms)

    def checks(self) -> DataReport:
        """Return the data report: what is unusual in this recording. Nothing is repaired."""
        from fitspike.recording.checks import check_recording

        return check_recording(self)

    def to_neo(self) -> Any:
        """Return the recording as a neo.Block, one segment per trial."""
        from fitspike.recording.neo_reader import to_neo

        return to_neo(self)

    def save(self, path: str | Path) -> Path:
        """Write the recording in the native, memory-mappable format and return the path; an existing path is refused."""
        from fitspike.recording.npz_io import save_recording

        return save_recording(self, Path(path))


def _inside(times_ns: np.ndarray, table: TrialTable) -> np.ndarray:
    """Return which times lie in any trial, (n_spikes,) bool."""
    begin = np.searchsorted(times_ns, table.start_ns, side="left")
    end = np.searchsorted(times_ns, table.stop_ns, side="left")
    change = np.zeros(len(times_ns) + 1, dtype=np.int64)
    np.add.at(change, begin, 1)
    np.add.at(change, end, -1)
    return np.cumsum(change[:-1]) > 0


def _cut_trials(table: TrialTable, start_s: float | None, stop_s: float | None, width_ns: int | None) -> TrialTable:
    low = np.iinfo(np.int64).min if start_s is None else int(s_to_ns(start_s))
    high = np.iinfo(np.int64).max if stop_s is None else int(s_to_ns(stop_s))
    if high <= low:
        raise RecordingError(f"the time range {start_s} to {stop_s} s is empty. Give start < stop.")
    start, stop = np.maximum(table.start_ns, low), np.minimum(table.stop_ns, high)
    if width_ns is not None:  # whole native bins only
        start = table.start_ns + -((table.start_ns - start) // width_ns) * width_ns
        stop = table.start_ns + (stop - table.start_ns) // width_ns * width_ns
    keep = np.flatnonzero(stop > start)
    cut = table.select(keep)
    warmup = np.maximum(cut.warmup_ns - (start[keep] - cut.start_ns), 0)
    return TrialTable(start[keep], stop[keep], cut.conditions, cut.columns, warmup)


def _join_signals(parts: Sequence[Signal], shifts: Sequence[int]) -> Signal:
    """Return signals on one clock, NaN in the gaps between the parts."""
    first = parts[0]
    period = NS_PER_S / first.sampling_rate_hz
    begin = [part.start_ns + shift for part, shift in zip(parts, shifts, strict=True)]
    offset = [round((at - begin[0]) / period) for at in begin]
    values = np.full((offset[-1] + len(parts[-1].values), first.n_channels), np.nan, dtype=np.result_type(first.values.dtype, np.float32))
    for at, part in zip(offset, parts, strict=True):
        values[at : at + len(part.values)] = part.values
    return Signal(values, first.sampling_rate_hz, begin[0], first.unit, first.channels)
