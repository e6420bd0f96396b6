"""Parts of a recording and what is added to it: selection, alignment to events, attachment. `Recording` offers each as a method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import RecordingError, UnknownNameError, did_you_mean
from fitspike.recording.tables import Signal, TrialTable
from fitspike.recording.where import neuron_mask
from fitspike.units import NS_PER_S, s_to_ns

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording


def select(
    recording: Recording,
    *,
    neurons: object | None = None,
    where: str | Iterable[str] | None = None,
    trials: object | None = None,
    conditions: Iterable[object] | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    signals: Iterable[str] | None = None,
) -> Recording:
    """Return the part of the recording that meets every criterion; spikes outside the trials that are left are dropped.

    Parameters
    ----------
    neurons : rows, a mask (n_neurons,), or ids (as text), in the order wanted
    where : one or several comparisons with a neuron column, such as "contamination < 0.05" or "quality == good"
    trials : rows in the order wanted, or a mask (n_trials,)
    conditions : condition labels to keep
    start_s, stop_s : time range, s
        Trials are cut to it, trials outside it are dropped. A cut of binned data falls on its native bins, inside the range.
    signals : names of the signals to keep

    Raises
    ------
    RecordingError, UnknownNameError
        If a name or row does not exist, or no neuron or no trial is left.
    """
    rows = np.arange(recording.n_neurons) if neurons is None else recording.rows(neurons)
    if where is not None:
        rows = rows[neuron_mask(recording.neurons, [where] if isinstance(where, str) else list(where))[rows]]
    if rows.size == 0:
        what = "" if where is None else f" {where!r}" if isinstance(where, str) else f" {' and '.join(map(str, where))!r}"
        raise RecordingError(f"no neuron is left of {recording.n_neurons}. Loosen the selection{what}.")
    if len(np.unique(rows)) < len(rows):
        raise RecordingError("a neuron is selected twice. Name every neuron once.")
    if signals is not None:
        recording = replace(recording, signals=_named_signals(recording, signals))
    if trials is None and conditions is None and start_s is None and stop_s is None:
        return _with_rows(recording, rows)
    index = _trial_rows(recording.trials, trials)
    if conditions is not None:
        wanted = [str(condition) for condition in conditions]
        known = sorted(set(recording.trials.conditions.tolist()))
        if missing := [name for name in wanted if name not in known]:
            raise UnknownNameError(
                f"no trial has condition {missing[0]!r}{did_you_mean(missing[0], known)} Conditions: {', '.join(known)}."
            )
        index = index[np.isin(recording.trials.conditions[index], wanted)]
    table = recording.trials.select(index)
    if start_s is not None or stop_s is not None:
        table = _cut_to_range(table, start_s, stop_s, recording.bin_width_ns)
    if len(table) == 0:
        low, high = recording.trials.start_ns.min(initial=0) / NS_PER_S, recording.trials.stop_ns.max(initial=0) / NS_PER_S
        raise RecordingError(
            f"no trial is left of {recording.n_trials}, which lie between {low:g} and {high:g} s. "
            "Loosen the selection of trials, conditions or time range."
        )
    return with_trials(_with_rows(recording, rows), table)


def with_trials(recording: Recording, table: TrialTable) -> Recording:
    """Return the recording cut to other trials on the same clock; spikes outside them are dropped."""
    inside = lies_inside(recording.spike_times_ns, table)
    if inside.all():
        return replace(recording, trials=table)
    return replace(
        recording,
        spike_times_ns=recording.spike_times_ns[inside],
        spike_neuron=recording.spike_neuron[inside],
        spike_count=None if recording.spike_count is None else recording.spike_count[inside],
        trials=table,
    )


def align(
    recording: Recording, events: str | object, window_s: tuple[float, float], *, conditions: Iterable[object] | None = None
) -> Recording:
    """Return the recording cut into one trial per event, from event + window_s[0] to event + window_s[1].

    Windows must lie inside one trial of the recording; those that do not are left out and counted in the source's notes. Windows of
    binned data start at the native bin nearest to the event. The new trials have a column "event": the number of their event.

    Parameters
    ----------
    events : name of recorded events, or event times (n_events,), s
    window_s : start and stop relative to the event, s
    conditions : one label per event, optional
        Default: the condition of the trial that the event lies in.

    Raises
    ------
    UnknownNameError, RecordingError
        If there are no such events, the window is empty, or no window lies inside a trial.
    """
    if isinstance(events, str):
        if events not in recording.events:
            known = ", ".join(recording.events) or "none; attach them first"
            raise UnknownNameError(f"no events {events!r}{did_you_mean(events, recording.events)} Events: {known}.")
        at = recording.events[events]
    else:
        at = event_times_ns(events)
    low, high = (int(s_to_ns(value)) for value in window_s)
    if high <= low:
        raise RecordingError(f"the window {window_s} s is empty. Give (before, after) with before < after, such as (-0.2, 0.8).")
    labels = None if conditions is None else np.asarray(list(conditions)).astype(str)
    if labels is not None and labels.shape != at.shape:
        raise RecordingError(f"{labels.size} condition labels for {at.size} events; expected one each.")
    width = recording.bin_width_ns
    start, stop, home = at + low, at + high, np.full(at.size, -1)
    table = recording.trials
    for k in range(len(table)):
        begin, end = start, stop
        if width is not None:
            begin = table.start_ns[k] + np.rint((at + low - table.start_ns[k]) / width).astype(np.int64) * width
            end = begin + max(1, round((high - low) / width)) * width
        fits = (home < 0) & (begin >= table.start_ns[k]) & (end <= table.stop_ns[k])
        home[fits] = k
        start, stop = np.where(fits, begin, start), np.where(fits, end, stop)
    kept = np.flatnonzero(home >= 0)
    if kept.size == 0:
        raise RecordingError(
            f"none of the windows of {window_s} s around {at.size} events lies inside a trial. Check window and event times."
        )
    inherited = table.conditions[home[kept]]
    columns = {name: values[home[kept]] for name, values in table.columns.items()} | {"event": kept}
    cut = with_trials(
        recording, TrialTable.make(start[kept], stop[kept], conditions=inherited if labels is None else labels[kept], columns=columns)
    )
    if kept.size == at.size:
        return cut
    note = f"align: {at.size - kept.size} of {at.size} windows of {window_s} s do not lie inside one trial and were left out."
    return replace(cut, source=replace(cut.source, notes=(*cut.source.notes, note)))


def attach(
    recording: Recording,
    *,
    signals: Mapping[str, Signal] | None = None,
    events: Mapping[str, object] | None = None,
    conditions: Iterable[object] | None = None,
    trial_columns: Mapping[str, object] | None = None,
    neuron_columns: Mapping[str, object] | None = None,
) -> Recording:
    """Return the recording with more beside its spikes; a name that exists already is replaced.

    Parameters
    ----------
    signals : Signal by name
    events : event times (n_events,), s, by name
    conditions : one label per trial
    trial_columns, neuron_columns : one value per trial or neuron, by name; "label" and "population" replace those of the neurons

    Raises
    ------
    RecordingError
        If a signal is no Signal, or there is not one label or value for each trial or neuron.
    """
    for name, signal in (signals or {}).items():
        if not isinstance(signal, Signal):
            raise RecordingError(f"signal {name!r} is a {type(signal).__name__}; expected Signal(values, sampling_rate_hz=...).")
    if isinstance(conditions, str):
        raise RecordingError(f"conditions={conditions!r} is one text; expected a list with one label per trial.")
    return replace(
        recording,
        signals={**recording.signals, **(signals or {})},
        events={**recording.events, **{name: np.sort(event_times_ns(times)) for name, times in (events or {}).items()}},
        trials=recording.trials.with_labels(conditions=None if conditions is None else list(conditions), columns=trial_columns),
        neurons=recording.neurons.with_columns(neuron_columns or {}),
    )


def event_times_ns(times_s: object) -> np.ndarray:
    """Return event times as int64 ns; RecordingError if one is NaN or infinite."""
    at = np.atleast_1d(np.asarray(times_s, dtype=np.float64)).ravel()
    if bad := at.size - np.count_nonzero(np.isfinite(at)):
        raise RecordingError(f"{bad} of {at.size} event times are NaN or infinite. Remove them.")
    return s_to_ns(at)


def lies_inside(times_ns: np.ndarray, table: TrialTable) -> np.ndarray:
    """Return which of the sorted times lie in any trial, (n_times,) bool."""
    change = np.zeros(len(times_ns) + 1, dtype=np.int32)
    np.add.at(change, np.searchsorted(times_ns, table.start_ns, side="left"), 1)
    np.subtract.at(change, np.searchsorted(times_ns, table.stop_ns, side="left"), 1)
    return np.cumsum(change[:-1], dtype=np.int32) > 0


def covered_ns(table: TrialTable) -> int:
    """Return the time that trials cover, overlaps counted once, ns."""
    order = np.argsort(table.start_ns, kind="stable")
    start, stop = table.start_ns[order], table.stop_ns[order]
    reach = np.maximum.accumulate(stop) if len(stop) else stop
    begin = np.maximum(start[1:], reach[:-1])
    return int((stop[:1] - start[:1]).sum() + np.maximum(stop[1:] - begin, 0).sum())


def _with_rows(recording: Recording, rows: np.ndarray) -> Recording:
    """Return the recording of some neurons, in the given order."""
    if np.array_equal(rows, np.arange(recording.n_neurons)):
        return recording
    new_row = np.full(recording.n_neurons, -1, dtype=np.int64)
    new_row[rows] = np.arange(len(rows))
    row = new_row[recording.spike_neuron]
    keep = row >= 0
    times, row = recording.spike_times_ns[keep], row[keep]
    count = None if recording.spike_count is None else recording.spike_count[keep]
    if (np.diff(rows) < 0).any():  # another order of neurons is another order of simultaneous spikes
        order = np.lexsort((row, times))
        times, row, count = times[order], row[order], None if count is None else count[order]
    return replace(
        recording,
        spike_times_ns=times,
        spike_neuron=row.astype(recording.spike_neuron.dtype),
        spike_count=count,
        neurons=recording.neurons.select(rows),
    )


def _trial_rows(table: TrialTable, trials: object | None) -> np.ndarray:
    if trials is None:
        return np.arange(len(table))
    chosen = np.atleast_1d(np.asarray(trials))
    if chosen.dtype == bool:
        if chosen.shape != (len(table),):
            raise RecordingError(f"a trial mask has shape {chosen.shape}; expected ({len(table)},).")
        return np.flatnonzero(chosen)
    if chosen.size and (chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= len(table)):
        raise RecordingError(f"trials {chosen.tolist()[:10]} asked for; trials are counted from 0 to {len(table) - 1}.")
    return chosen.astype(np.int64)


def _cut_to_range(table: TrialTable, start_s: float | None, stop_s: float | None, width_ns: int | None) -> TrialTable:
    """Return the trials cut to a time range; with native bins to the whole bins inside it."""
    low = np.iinfo(np.int64).min if start_s is None else int(s_to_ns(start_s))
    high = np.iinfo(np.int64).max if stop_s is None else int(s_to_ns(stop_s))
    if high <= low:
        raise RecordingError(f"the time range {start_s} to {stop_s} s is empty. Give a start before the stop.")
    start, stop = np.maximum(table.start_ns, low), np.minimum(table.stop_ns, high)
    if width_ns is not None:
        start = table.start_ns + -((table.start_ns - start) // width_ns) * width_ns
        stop = table.start_ns + (stop - table.start_ns) // width_ns * width_ns
    keep = np.flatnonzero(stop > start)
    return table.select(keep).narrow(start[keep], stop[keep])


def _named_signals(recording: Recording, names: Iterable[str]) -> dict[str, Signal]:
    names = list(names)
    if missing := [name for name in names if name not in recording.signals]:
        known = ", ".join(recording.signals) or "none"
        raise UnknownNameError(f"no signal {missing[0]!r}{did_you_mean(missing[0], recording.signals)} Signals: {known}.")
    return {name: recording.signals[name] for name in names}
