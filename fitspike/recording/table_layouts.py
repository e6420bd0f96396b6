"""From what a table's entries mean to a recording: flat columns, one array per neuron, flat times with counts, binned counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.recording import Recording
from fitspike.recording.table_options import TableOptions
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable
from fitspike.recording.text_tables import id_range, is_number, natural_key, unit_in_name
from fitspike.recording.times import times_to_ns
from fitspike.units import NS_PER_MS, NS_PER_S, s_to_ns

AXES = ("trial", "repeat", "condition", "time", "neuron")
_END_GRID_NS = 10 * NS_PER_MS


@dataclass(frozen=True)
class Layout:
    """An opened table: `find` looks entries up by name; `trains` where the layout itself gives one array per neuron.

    line_numbers : the line of a text file that each row stands in, to name it in an error
    """

    path: Path
    find: Callable[[str], Any] | None
    described: str
    trains: list[np.ndarray] | None = None
    train_ids: list[str] | None = None
    train_labels: list[str] | None = None
    unit: str | None = None
    line_numbers: Sequence[int] | None = None

    def place(self, row: int) -> str:
        """Return where a row is, in words."""
        return f"row {row}, counted from 0" if self.line_numbers is None else f"line {self.line_numbers[row]}"


def build(layout: Layout, settings: TableOptions, notes: list[str], source: Callable[[], RecordingSource]) -> Recording:
    """Return the recording of an opened table; `source()` is called last, when all notes are written."""
    if settings.counts is not None:
        return _binned(layout, settings, source)
    times, owner, ids, labels = _spikes(layout, settings, notes)
    unit = _unit(layout, settings, times, notes)
    times_ns = times_to_ns(times, unit=unit or "s", sampling_rate_hz=settings.sampling_rate_hz)
    if not times_ns.size:
        raise NoSpikeTrainsError(f"no spike trains found in {layout.path}: it holds no spike. There is: {layout.described}")
    neurons = NeuronTable.make(ids, labels=labels).with_columns(_neuron_columns(layout, settings, len(ids)))
    trials = None
    if settings.trials is not None or settings.conditions is not None:
        times_ns, trials = _trials(layout, settings, times_ns, notes)
    elif settings.frame_s is not None:
        trials = _frames(settings, times_ns)
    elif (n_negative := int((times_ns < 0).sum())) and settings.start_s is None:
        notes.append(
            f"table: {n_negative} spikes at negative times, the first at {times_ns.min() / NS_PER_S:g} s, are kept; the recording starts "
            "there. Give start_s=0 to start at 0."
        )
    if trials is None and settings.stop_s is not None and (n_late := int((times_ns >= s_to_ns(settings.stop_s)).sum())):
        notes.append(f"table: {n_late} spikes lie after stop_s={settings.stop_s:g}, the last at {times_ns.max() / NS_PER_S:g} s.")
    return Recording.from_arrays(
        times_ns,
        owner,
        unit="ns",
        neurons=neurons,
        trials=trials,
        start_s=settings.start_s,
        stop_s=settings.stop_s,
        signals=_signals(layout, settings),
        events={
            name: times_to_ns(np.ravel(_array(layout, path)), unit=unit or "s", sampling_rate_hz=settings.sampling_rate_hz)
            for name, path in settings.events.items()
        },
        source=source(),
    )


def _array(layout: Layout, name: str) -> np.ndarray:
    if layout.find is None:
        raise ReadError(f"{layout.path} has no entry {name!r}; it holds {layout.described}")
    return np.asarray(layout.find(name))


def _spikes(layout: Layout, settings: TableOptions, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str] | None]:
    """Return flat times, the id of each one's neuron, all ids, and labels."""
    entry = layout.trains if layout.trains is not None else layout.find(settings.times)
    if isinstance(entry, list) or settings.spikes_per_neuron is not None:
        trains = _cut(layout, settings, entry) if settings.spikes_per_neuron is not None else [_train(layout, item) for item in entry]
        ids = _ids(settings, layout.train_ids or np.arange(len(trains)).astype(str))
        if len(ids) != len(trains):
            raise ReadError(f"{layout.path}: {len(trains)} spike trains but {len(ids)} ids; expected one id per train.")
        owner = np.repeat(ids, [len(train) for train in trains])
        return np.concatenate([np.zeros(0), *trains]), owner, ids, layout.train_labels if settings.ids is None else None
    times = np.asarray(entry)
    if times.dtype.kind not in "iufb":
        row = next((i for i, text in enumerate(times.ravel().astype(str)) if not is_number(text)), 0)
        raise ReadError(
            f"{layout.path}: {settings.times!r} holds {str(times.flat[row])!r} in {layout.place(row)}; expected numbers, with decimal "
            f"points. There is: {layout.described}"
        )
    if times.dtype.kind == "f" and (bad := np.flatnonzero(~np.isfinite(times.ravel()))).size:
        raise ReadError(
            f"{layout.path}: {bad.size} of {times.size} times in {settings.times!r} are NaN or infinite, the first in "
            f"{layout.place(int(bad[0]))}. Remove them before loading."
        )
    if times.ndim > 1 and times.size != max(times.shape):
        raise ReadError(
            f"{layout.path}: {settings.times!r} has shape {times.shape}; expected one row or column, such as '{settings.times}[:,1]'."
        )
    times = times.ravel()
    if settings.neurons is None:
        notes.append("table: no neurons= was given; all spikes are taken as one neuron's.")
        ids = _ids(settings, np.array(["0"]))
        return times, np.repeat(ids[:1], times.size), ids, None
    given = np.ravel(_array(layout, settings.neurons))
    if given.size != times.size:
        raise ReadError(
            f"{layout.path}: {settings.times!r} has {times.size} entries and {settings.neurons!r} {given.size}; expected one per spike. "
            "If it holds the number of spikes of each neuron, say spikes_per_neuron= instead of neurons=."
        )
    if given.dtype.kind in "US" and (blank := np.flatnonzero(np.char.strip(given) == given.dtype.type())).size:
        raise ReadError(
            f"{layout.path}: {blank.size} of {given.size} spikes have no neuron in {settings.neurons!r}, the first in "
            f"{layout.place(int(blank[0]))}. Remove them, or name their neuron."
        )
    if given.dtype.kind == "f":
        if not np.isfinite(given).all() or (given != np.rint(given)).any():
            raise ReadError(
                f"{layout.path}: {settings.neurons!r} holds numbers such as {given[given != np.rint(given)][0]}; expected neuron ids."
            )
        given = given.astype(np.int64)
    occurring = np.unique(given)
    names = occurring.astype(str)
    ids = _ids(settings, sorted(names, key=natural_key) if given.dtype.kind in "US" else names)
    if (
        settings.ids is None
        and given.dtype.kind in "iu"
        and occurring.size
        and (missing := occurring[-1] - occurring[0] + 1 - occurring.size)
    ):
        span = f"{occurring[0]}..{occurring[-1]}"
        notes.append(
            f'table: neuron ids run from {span} and {missing} of them have no spike; they are left out unless you say ids="{span}".'
        )
    return times, given, ids, None


def _ids(settings: TableOptions, default: Any) -> np.ndarray:
    if settings.ids is None:
        return np.asarray(default)
    return (id_range(settings.ids) if isinstance(settings.ids, str) else np.asarray(settings.ids)).astype(str)


def _train(layout: Layout, item: Any) -> np.ndarray:
    array = np.asarray(item)
    if array.dtype.kind not in "iufb" or (array.ndim > 1 and array.size != max(array.shape, default=0)):
        raise ReadError(
            f"{layout.path}: an entry of the list has shape {array.shape} and type {array.dtype}; expected the times of one neuron."
        )
    return array.ravel()


def _cut(layout: Layout, settings: TableOptions, entry: Any) -> list[np.ndarray]:
    """Return flat times cut at the cumulative sums of the spikes per neuron."""
    flat, counts = np.ravel(entry), np.ravel(_array(layout, settings.spikes_per_neuron)).astype(np.int64)
    if (counts < 0).any() or counts.sum() != flat.size:
        raise ReadError(
            f"{layout.path}: {settings.spikes_per_neuron!r} sums to {counts.sum()}, and {settings.times!r} has {flat.size} entries; "
            "expected the same."
        )
    return np.split(flat, np.cumsum(counts)[:-1])


def _unit(layout: Layout, settings: TableOptions, times: np.ndarray, notes: list[str]) -> str | None:
    stated = layout.unit or (unit_in_name(settings.times) if settings.times else None)
    if settings.sampling_rate_hz is not None:
        return None
    if settings.unit is not None:
        if stated is not None and stated != settings.unit:
            notes.append(f"table: the file says times in {stated}; unit={settings.unit!r} was given and used.")
        return settings.unit
    if stated is not None:
        notes.append(f"table: times are in {stated}, as the file says.")
        return stated
    span = f", from {times.min():g} to {times.max():g}" if times.size else ""
    raise ReadError(
        f"{layout.path}: {times.size} spike times{span}, and nothing says their unit. Give unit='s' (or 'ms', 'us', 'ns'), or "
        f"sampling_rate_hz if they count samples. There is: {layout.described}"
    )


def _trials(layout: Layout, settings: TableOptions, times_ns: np.ndarray, notes: list[str]) -> tuple[np.ndarray, TrialTable]:
    """Return times moved to one axis and the trial table: trials laid end to end, in the order of condition and number."""
    labels = [np.ravel(_array(layout, name)) for name in (settings.conditions, settings.trials) if name is not None]
    for name, values in zip([n for n in (settings.conditions, settings.trials) if n], labels, strict=True):
        if values.size != times_ns.size:
            raise ReadError(f"{layout.path}: {name!r} has {values.size} entries for {times_ns.size} spikes; expected one per spike.")
    conditions = labels[0] if settings.conditions is not None else np.full(times_ns.size, "")
    numbers = labels[-1] if settings.trials is not None else np.zeros(times_ns.size)
    keys = sorted(set(zip(conditions.tolist(), numbers.tolist(), strict=True)))
    if settings.n_trials is not None:
        if settings.conditions is not None or len(keys) > settings.n_trials or not all(isinstance(n, float | int) for _, n in keys):
            raise ReadError(
                f"{layout.path}: n_trials={settings.n_trials}, but {len(keys)} trials have spikes; give as many, and no conditions."
            )
        keys = [("", keys[0][1] + k) for k in range(settings.n_trials)]
    elif (missing := _gaps([n for _, n in keys])) and settings.conditions is None:
        notes.append(f"table: trial numbers {missing} do not occur; they are left out unless you say n_trials.")
    row = {key: k for k, key in enumerate(keys)}
    unlisted = sorted({key for key in zip(conditions.tolist(), numbers.tolist(), strict=True)} - set(row))
    if unlisted:
        raise ReadError(f"{layout.path}: trial {unlisted[0][1]} is beyond n_trials={settings.n_trials}.")
    trial_of = np.array([row[key] for key in zip(conditions.tolist(), numbers.tolist(), strict=True)])
    if settings.trial_duration_s is None:
        duration = -(-(int(times_ns.max()) + 1) // _END_GRID_NS) * _END_GRID_NS
        notes.append(f"table: no trial_duration_s was given; trials last {duration / NS_PER_S:g} s, to the latest spike of all.")
    else:
        duration = int(s_to_ns(settings.trial_duration_s))
    if ((times_ns < 0) | (times_ns >= duration)).any():
        raise ReadError(
            f"{layout.path}: spikes from {times_ns.min() / NS_PER_S:g} to {times_ns.max() / NS_PER_S:g} s do not fit trials of "
            f"{duration / NS_PER_S:g} s. "
            "Give a longer trial_duration_s, or frame_s if the times do not start anew with each trial."
        )
    starts = np.arange(len(keys)) * (duration + NS_PER_S)
    names = [str(int(n)) if isinstance(n, float) and n.is_integer() else str(n) for _, n in keys]
    columns = {"trial": np.asarray(names)} if settings.trials is not None else None
    table = TrialTable.make(starts, starts + duration, conditions=[str(c) for c, _ in keys], columns=columns)
    return times_ns + starts[trial_of], table


def _gaps(numbers: list[Any]) -> str:
    """Return the whole numbers missing between the first and the last, as text."""
    if not numbers or not all(isinstance(n, float | int) and float(n).is_integer() for n in numbers):
        return ""
    present = {int(n) for n in numbers}
    missing = [str(n) for n in range(min(present), max(present)) if n not in present]
    return ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")


def _frames(settings: TableOptions, times_ns: np.ndarray) -> TrialTable:
    frame = int(s_to_ns(settings.frame_s))
    start = int(s_to_ns(settings.start_s or 0.0))
    stop = int(times_ns.max()) + 1 if settings.stop_s is None else int(s_to_ns(settings.stop_s))
    starts = start + np.arange(max(1, -(-(stop - start) // frame))) * frame
    return TrialTable.make(starts, starts + frame, columns={"frame": np.arange(len(starts))})


def _neuron_columns(layout: Layout, settings: TableOptions, n_neurons: int) -> dict[str, np.ndarray]:
    columns = {}
    for name, path in settings.neuron_columns.items():
        values = _array(layout, path)
        values = values.ravel() if values.size == n_neurons else values
        if values.shape[:1] != (n_neurons,):
            raise ReadError(
                f"{layout.path}: neuron column {path!r} has shape {values.shape}; expected one entry for each of {n_neurons} neurons."
            )
        columns[name] = values.astype(str) if values.dtype.kind == "S" else values
    return columns


def _signals(layout: Layout, settings: TableOptions) -> dict[str, Signal]:
    if settings.signals and settings.signal_rate_hz is None:
        raise ReadError("signals= needs signal_rate_hz, their sampling rate.")
    start_ns = int(s_to_ns(settings.start_s or 0.0))
    return {
        name: Signal(np.asarray(_array(layout, path), dtype=np.float64), float(settings.signal_rate_hz), start_ns)
        for name, path in settings.signals.items()
    }


def _binned(layout: Layout, settings: TableOptions, source: Callable[[], RecordingSource]) -> Recording:
    """Return binned counts as trials (trial, repeat and condition axes flattened in this order: condition, then repeat)."""
    counts = _array(layout, settings.counts)
    axes = [part.strip() for part in (settings.axes or "").split(",") if part.strip()]
    if (
        settings.dt_ms is None
        or len(axes) != counts.ndim
        or not {"time", "neuron"} <= set(axes) <= set(AXES)
        or len(set(axes)) != len(axes)
    ):
        raise ReadError(
            f"{layout.path}: counts {settings.counts!r} have shape {counts.shape}; axes={settings.axes!r}, dt_ms={settings.dt_ms}. "
            f"Give dt_ms and a name for each axis, of {', '.join(AXES)}, such as axes='time,neuron', dt_ms=10."
        )
    outer = [axis for axis in ("condition", "trial", "repeat") if axis in axes]
    ordered = np.transpose(counts, [axes.index(axis) for axis in (*outer, "time", "neuron")])
    shape = ordered.shape[: len(outer)]
    blocks = ordered.reshape(-1, *ordered.shape[len(outer) :])
    where = dict(zip(outer, (index.ravel() for index in np.indices(shape)), strict=True))
    n_neurons = blocks.shape[-1]
    ids = _ids(settings, np.arange(n_neurons).astype(str))
    recording = Recording.from_counts(
        blocks,
        dt_ms=settings.dt_ms,
        neurons=NeuronTable.make(ids).with_columns(_neuron_columns(layout, settings, n_neurons)),
        conditions=where["condition"].astype(str) if "condition" in where else None,
        trial_columns={name: values for name, values in where.items() if name != "condition"},
        signals=_signals(layout, settings),
        source=source(),
    )
    if not recording.n_spikes:
        raise NoSpikeTrainsError(f"no spike trains found in {layout.path}: the counts are all 0.")
    return recording
