"""Making recordings from arrays, trains, trials, counts, and from other recordings. `Recording` offers each as a class method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import Problems, RecordingError
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable
from fitspike.recording.times import times_to_ns
from fitspike.units import NS_PER_MS, NS_PER_S, bin_width_ns, s_to_ns

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

_END_GRID_NS = 10 * NS_PER_MS
"""The end of a recording that nobody stated lies on this grid, so that bins of 1, 2, 5 and 10 ms reach the last spike."""


def from_arrays(
    cls: type[Recording],
    times: object,
    neuron_ids: object,
    *,
    unit: str = "s",
    sampling_rate_hz: float | None = None,
    n_neurons: int | None = None,
    ids: Sequence[object] | None = None,
    neurons: NeuronTable | None = None,
    trials: TrialTable | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    signals: Mapping[str, Signal] | None = None,
    events: Mapping[str, np.ndarray] | None = None,
    source: RecordingSource | None = None,
) -> Recording:
    """Return a recording from flat arrays of spike times and neuron ids, in any order.

    Parameters
    ----------
    times : (n_spikes,) in `unit`, or sampling points where `sampling_rate_hz` is given
    neuron_ids : (n_spikes,)
    n_neurons, ids, neurons : at most one of them, to list all neurons, also silent ones
        `n_neurons` stands for the ids 0, 1, ... Default: the ids that occur, sorted.
    trials : TrialTable, optional
        Default: one trial from `start_s` (default: 0, or the first spike if that is negative) to `stop_s` (default: the last spike,
        rounded up to 10 ms).
    events : mapping from a name to times, int64 ns

    Raises
    ------
    RecordingError
        If times and ids do not match, a time is not finite, or a spike belongs to a neuron that is not listed.
    """
    times_ns = times_to_ns(times, unit=unit, sampling_rate_hz=sampling_rate_hz).ravel()
    given = np.asarray(neuron_ids).ravel()
    if given.shape != times_ns.shape:
        raise RecordingError(f"{times_ns.size} spike times but {given.size} neuron ids; expected one id per spike.")
    given = _checked_ids(given)
    if sum(option is not None for option in (n_neurons, ids, neurons)) > 1:
        raise RecordingError("give one of n_neurons, ids and neurons, not several.")
    occurring, rows_of_occurring = np.unique(given, return_inverse=True)
    if neurons is None:
        neurons = NeuronTable.make(np.arange(n_neurons) if n_neurons is not None else occurring if ids is None else np.asarray(ids))
    row_of = {name: row for row, name in enumerate(neurons.ids.tolist())}
    names = occurring.astype(str).tolist()
    if unknown := [name for name in names if name not in row_of]:
        listed = f"{', '.join(neurons.ids[:3])}{', ...' if len(neurons) > 3 else ''}"
        raise RecordingError(
            f"spikes belong to {len(unknown)} neurons that are not listed ({', '.join(unknown[:5])}); listed are {listed}. "
            "List every neuron in `ids`."
        )
    rows = np.array([row_of[name] for name in names], dtype=np.int64)
    neuron = rows[rows_of_occurring] if rows.size else np.zeros(0, np.int64)
    return from_rows(cls, times_ns, neuron, neurons, trials or _one_trial(times_ns, start_s, stop_s), signals, events, source)


def from_trains(
    cls: type[Recording],
    trains: Sequence[object] | Mapping[object, object],
    *,
    unit: str = "s",
    sampling_rate_hz: float | None = None,
    ids: Sequence[object] | None = None,
    neurons: NeuronTable | None = None,
    trials: TrialTable | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    signals: Mapping[str, Signal] | None = None,
    events: Mapping[str, np.ndarray] | None = None,
    source: RecordingSource | None = None,
) -> Recording:
    """Return a recording from one array of spike times per neuron: a sequence, or a mapping from id. Other options as `from_arrays`.

    Raises
    ------
    RecordingError
        If trains and ids do not match, or a time is not finite.
    """
    arrays = list(trains.values() if isinstance(trains, Mapping) else trains)
    if neurons is None:
        names = ids if ids is not None else list(trains) if isinstance(trains, Mapping) else np.arange(len(arrays))
        neurons = NeuronTable.make(np.asarray(names) if len(arrays) else np.zeros(0, dtype="<U1"))
    if len(neurons) != len(arrays):
        raise RecordingError(f"{len(arrays)} spike trains but {len(neurons)} neuron ids; expected one id per train.")
    ns = [_one_train(train, unit, sampling_rate_hz) for train in arrays]
    times_ns = np.concatenate(ns) if ns else np.zeros(0, np.int64)
    neuron = np.repeat(np.arange(len(ns), dtype=_row_type(len(ns))), [len(train) for train in ns])
    del ns, arrays
    return from_rows(cls, times_ns, neuron, neurons, trials or _one_trial(times_ns, start_s, stop_s), signals, events, source)


def from_trials(
    cls: type[Recording],
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
    """Return a recording from trains[trial][neuron], times counted from each trial's start; trials are laid end to end with a gap.

    Raises
    ------
    RecordingError
        If the trials do not have equally many trains, or a spike lies outside its trial.
    """
    n_trials = len(trains)
    n_neurons = len(trains[0]) if n_trials else len(ids or ())
    problems = Problems("trials")
    for k in [k for k, trial in enumerate(trains) if len(trial) != n_neurons][:5]:
        problems.add(f"trial {k} has {len(trains[k])} trains and trial 0 has {n_neurons}; expected the same neurons in all.")
    problems.raise_if_any(RecordingError)
    durations = np.broadcast_to(s_to_ns(durations_s), (n_trials,))
    starts = np.concatenate([[0], np.cumsum(durations + int(s_to_ns(gap_s)))])[:n_trials].astype(np.int64)
    times = [_one_train(train, unit) for trial in trains for train in trial]
    owner = np.repeat(np.arange(n_trials * n_neurons), [len(train) for train in times])
    trial_of, neuron = np.divmod(owner, max(n_neurons, 1))
    within = np.concatenate(times) if times else np.zeros(0, np.int64)
    for k in np.unique(trial_of[(within < 0) | (within >= durations[trial_of])])[:5]:
        problems.add(f"trial {k} has a spike outside its 0 to {durations[k] / NS_PER_S:g} s. Count times from the trial's start.")
    problems.raise_if_any(RecordingError)
    table = TrialTable.make(starts, starts + durations, conditions=conditions, columns=trial_columns)
    neurons = NeuronTable.make(np.arange(n_neurons) if ids is None else np.asarray(ids))
    if len(neurons) != n_neurons:
        raise RecordingError(f"{n_neurons} trains per trial but {len(neurons)} neuron ids; expected one id per train.")
    return from_rows(cls, within + starts[trial_of], neuron, neurons, table, source=source)


def _one_train(train: object, unit: str, sampling_rate_hz: float | None = None) -> np.ndarray:
    """Return one neuron's spike times, (n_spikes,) int64 ns; refuse a number, and a matrix."""
    times_ns = times_to_ns(train, unit=unit, sampling_rate_hz=sampling_rate_hz)
    if times_ns.ndim == 0:
        raise RecordingError(f"a spike train is the number {train}; expected an array of times per neuron. Of one neuron: [times].")
    if times_ns.size and times_ns.size != max(times_ns.shape):
        raise RecordingError(f"a spike train has shape {times_ns.shape}; expected the times of one neuron, (n_spikes,).")
    return times_ns.ravel()


def _checked_ids(ids: np.ndarray) -> np.ndarray:
    """Return neuron ids, floats that are whole numbers as integers; refuse those that name no neuron."""
    is_missing = np.array([name is None or name != name for name in ids]) if ids.dtype == object else np.zeros(ids.shape, bool)
    if ids.dtype.kind == "f":
        is_missing = np.isnan(ids)
    if is_missing.any():
        first = int(np.flatnonzero(is_missing)[0])
        raise RecordingError(
            f"{np.count_nonzero(is_missing)} of {ids.size} spikes have no neuron (spike {first} is of {ids[first]}). Name their neuron, or "
            "remove them."
        )
    if ids.dtype == object:
        return ids.astype(str)
    is_whole = ids.dtype.kind == "f" and bool((ids == np.rint(ids)).all()) and bool((np.abs(ids) < 2**53).all())
    return ids.astype(np.int64) if is_whole else ids


def from_counts(
    cls: type[Recording],
    counts: object,
    *,
    dt_ms: float,
    ids: Sequence[object] | None = None,
    neurons: NeuronTable | None = None,
    conditions: Sequence[object] | None = None,
    trial_columns: Mapping[str, object] | None = None,
    signals: Mapping[str, Signal] | None = None,
    events: Mapping[str, np.ndarray] | None = None,
    source: RecordingSource | None = None,
) -> Recording:
    """Return a recording of binned counts; `bin()` of it accepts whole multiples of `dt_ms` only.

    Parameters
    ----------
    counts : (n_trials, n_bins, n_neurons), (n_bins, n_neurons), or a list of (n_bins_k, n_neurons)
        Trials are laid end to end.
    dt_ms : float

    Raises
    ------
    RecordingError
        If shapes differ or a value is no whole number of spikes; the text lists the trials.
    """
    width = bin_width_ns(dt_ms)
    blocks = [np.asarray(counts)] if isinstance(counts, np.ndarray) and counts.ndim == 2 else [np.asarray(block) for block in counts]
    listed = len(neurons) if neurons is not None else len(ids) if ids is not None else 0
    n_neurons = blocks[0].shape[1] if blocks and blocks[0].ndim == 2 else listed
    problems = Problems("counts")
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    edges = [0]
    for k, block in enumerate(blocks):
        if block.ndim != 2 or block.shape[1] != n_neurons:
            problems.add(f"trial {k} has shape {block.shape}; expected (n_bins, {n_neurons}).")
            continue
        if not _are_counts(block):
            problems.add(f"trial {k} holds values that are no whole number of spikes (NaN, negative or fractional).")
            continue
        bins, neuron = np.nonzero(block)
        parts.append((edges[-1] + bins.astype(np.int64) * width, neuron, block[bins, neuron].astype(np.int64)))
        edges.append(edges[-1] + len(block) * width)
    if neurons is None and not problems.texts:
        neurons = NeuronTable.make(np.arange(n_neurons) if ids is None else np.asarray(ids))
    if neurons is not None and len(neurons) != n_neurons:
        problems.add(f"counts are of {n_neurons} neurons, but {len(neurons)} ids are given; expected one id per column.")
    problems.raise_if_any(RecordingError)
    table = TrialTable.make(edges[:-1], edges[1:], conditions=conditions, columns=trial_columns)
    times, owner, number = (
        (np.concatenate([np.zeros(0, np.int64), *column]) for column in zip(*parts, strict=True)) if parts else [np.zeros(0, np.int64)] * 3
    )
    return from_rows(cls, times, owner, neurons, table, signals, events, source, count=number, bin_width=width)


def concatenate(
    cls: type[Recording],
    recordings: Sequence[Recording],
    *,
    column: str = "file",
    labels: Sequence[object] | None = None,
    gap_s: float = 1.0,
) -> Recording:
    """Return recordings of the same neurons as one: their trials one after another in time, with a gap, `column` telling them apart.

    Trial columns that only some recordings have are left out, and the source's notes say so.

    Raises
    ------
    RecordingError
        If the recordings do not have the same neurons, signals, or native bin width; the text lists every difference.
    """
    if not recordings:
        raise RecordingError("nothing to join: give at least one recording.")
    names = np.asarray([str(label) for label in (range(len(recordings)) if labels is None else labels)])
    if len(names) != len(recordings):
        raise RecordingError(f"{len(recordings)} recordings but {len(names)} labels; expected one each.")
    _check_joinable(recordings)
    first = recordings[0]
    shifts, next_start = [], 0
    for recording in recordings:
        low, high = recording.extent_ns
        shifts.append(next_start - low if shifts else 0)
        next_start = high + shifts[-1] + int(s_to_ns(gap_s))

    def joined(arrays: list[np.ndarray], *, is_time: bool = False) -> np.ndarray:
        return np.concatenate([array + shift if is_time else array for array, shift in zip(arrays, shifts, strict=True)])

    trials = [recording.trials for recording in recordings]
    every = set().union(*(table.columns for table in trials)) - {column}
    shared = set.intersection(*(set(table.columns) for table in trials)) - {column}
    columns: dict[str, Any] = {name: joined([table.columns[name] for table in trials]) for name in sorted(shared)}
    columns[column] = np.repeat(names, [len(table) for table in trials])
    table = TrialTable.make(
        joined([table.start_ns for table in trials], is_time=True),
        joined([table.stop_ns for table in trials], is_time=True),
        conditions=joined([table.conditions for table in trials]),
        columns=columns,
        warmup_ns=joined([table.warmup_ns for table in trials]),
        offset_ns=joined([table.offset_ns for table in trials]),
    )
    notes = dict.fromkeys(note for recording in recordings for note in recording.source.notes)
    if every - shared:
        notes[f"concatenate: trial columns {', '.join(sorted(every - shared))} are not in every recording and were left out."] = None
    event_names = dict.fromkeys(name for recording in recordings for name in recording.events)
    none = np.zeros(0, np.int64)
    return from_rows(
        cls,
        joined([recording.spike_times_ns for recording in recordings], is_time=True),
        joined([recording.spike_neuron for recording in recordings]),
        first.neurons,
        table,
        {name: join_signals([r.signals[name] for r in recordings], shifts) for name in first.signals},
        {name: joined([r.events.get(name, none) for r in recordings], is_time=True) for name in event_names},
        RecordingSource(
            path="; ".join(r.source.path for r in recordings),
            sha256=" ".join(r.source.sha256 for r in recordings),
            reader=first.source.reader,
            reader_version=first.source.reader_version,
            notes=tuple(notes),
        ),
        count=joined([r.spike_count for r in recordings]) if first.is_binned else None,
        bin_width=first.bin_width_ns,
    )


def _check_joinable(recordings: Sequence[Recording]) -> None:
    """Raise RecordingError with every difference that keeps recordings from being joined."""
    first = recordings[0]
    problems = Problems("these recordings cannot be joined")
    for number, other in enumerate(recordings[1:], start=1):
        if not np.array_equal(other.neurons.ids, first.neurons.ids):
            problems.add(f"recording {number} has other neurons ({other.n_neurons}) than recording 0 ({first.n_neurons}).")
        if other.bin_width_ns != first.bin_width_ns:
            problems.add(f"recording {number} has native bins of {other.bin_width_ns} ns, recording 0 of {first.bin_width_ns} ns.")
        if set(other.signals) != set(first.signals):
            problems.add(f"recording {number} has signals {sorted(other.signals)}, recording 0 {sorted(first.signals)}.")
        for name in sorted(set(other.signals) & set(first.signals)):
            ours, theirs = first.signals[name], other.signals[name]
            if (ours.sampling_rate_hz, ours.n_channels) != (theirs.sampling_rate_hz, theirs.n_channels):
                problems.add(
                    f"signal {name!r} has {theirs.n_channels} channels at {theirs.sampling_rate_hz:g} Hz in recording {number}, "
                    f"{ours.n_channels} at {ours.sampling_rate_hz:g} Hz in recording 0."
                )
    problems.raise_if_any(RecordingError)


def join_signals(parts: Sequence[Signal], shifts: Sequence[int]) -> Signal:
    """Return signals on one clock, NaN in the gaps between the parts; each part is moved by less than half a sample."""
    first = parts[0]
    if len(parts) == 1:
        return first
    period = NS_PER_S / first.sampling_rate_hz
    begin = [part.start_ns + shift for part, shift in zip(parts, shifts, strict=True)]
    row = [round((at - begin[0]) / period) for at in begin]
    n_rows = max(at + len(part.values) for at, part in zip(row, parts, strict=True))
    values = np.full((n_rows, first.n_channels), np.nan, dtype=np.result_type(first.values.dtype, np.float32))
    for at, part in zip(row, parts, strict=True):
        values[at : at + len(part.values)] = part.values
    return Signal(values, first.sampling_rate_hz, begin[0], first.unit, first.channels)


def _are_counts(block: np.ndarray) -> bool:
    if block.dtype.kind in "ub":
        return True
    if block.dtype.kind == "i":
        return bool((block >= 0).all())
    return block.dtype.kind == "f" and bool((np.isfinite(block) & (block >= 0) & (block == np.rint(block))).all())


def _one_trial(times_ns: np.ndarray, start_s: float | None, stop_s: float | None) -> TrialTable:
    first, last = (int(times_ns.min()), int(times_ns.max())) if times_ns.size else (0, 0)
    start = min(0, first) if start_s is None else int(s_to_ns(start_s))
    if stop_s is not None:
        return TrialTable.make([start], [int(s_to_ns(stop_s))])
    reach = last + 1 - start if times_ns.size else 0
    return TrialTable.make([start], [start + max(0, -(-reach // _END_GRID_NS) * _END_GRID_NS)])


def _row_type(n_neurons: int) -> type:
    return np.uint16 if n_neurons <= np.iinfo(np.uint16).max else np.uint32


def from_rows(
    cls: type[Recording],
    times_ns: np.ndarray,
    neuron: np.ndarray,
    neurons: NeuronTable,
    trials: TrialTable,
    signals: Mapping[str, Signal] | None = None,
    events: Mapping[str, np.ndarray] | None = None,
    source: RecordingSource | None = None,
    *,
    count: np.ndarray | None = None,
    bin_width: int | None = None,
) -> Recording:
    """Return a recording of spikes whose neurons are given as rows of `neurons`, in any order; sorted by time, ties by neuron."""
    neuron = neuron.astype(_row_type(len(neurons)), copy=False)
    if times_ns.size and not bool((times_ns[1:] > times_ns[:-1]).all()):
        order = np.lexsort((neuron, times_ns))
        times_ns, neuron = times_ns[order], neuron[order]
        count = None if count is None else count[order]
    return cls(
        np.ascontiguousarray(times_ns, dtype=np.int64),
        np.ascontiguousarray(neuron),
        neurons,
        trials,
        dict(signals or {}),
        source or RecordingSource(),
        count,
        bin_width,
        {name: np.sort(np.asarray(at, dtype=np.int64)) for name, at in (events or {}).items()},
    )
