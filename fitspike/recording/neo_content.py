"""Spike trains, events and signals of neo blocks and raw readers as columns, and their assembly into one recording.

Neo objects are handled by their attributes only; `neo_reader.py` is the file that imports neo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.making import from_rows, join_signals
from fitspike.recording.reading import choose_signals
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable
from fitspike.recording.times import times_to_ns
from fitspike.units import NS_PER_MS, NS_PER_S, TIME_UNITS_NS, s_to_ns

_GAP_NS = NS_PER_S
_MAX_LABELS = 100


@dataclass
class Stretch:
    """One segment of one block: times (n_spikes,) ns with their neuron's row, the time covered, events in ns, signals not yet read."""

    times_ns: np.ndarray
    neuron: np.ndarray
    start_ns: int
    stop_ns: int
    condition: str = ""
    events: dict[str, np.ndarray] = field(default_factory=dict)
    signals: dict[str, Callable[[], Signal]] = field(default_factory=dict)
    signal_sizes: dict[str, int] = field(default_factory=dict)


def split_by_label(name: str, times_ns: np.ndarray, labels: Sequence[object]) -> dict[str, np.ndarray]:
    """Return events under their name, and under "name:label" for each label where there are 2 to 100 different ones."""
    found = {name: times_ns}
    texts = np.asarray([str(label) for label in labels])
    different = np.unique(texts)
    if len(texts) == len(times_ns) and 2 <= len(different) <= _MAX_LABELS:
        found |= {f"{name}:{label}": times_ns[texts == label] for label in different}
    return found


def assemble(
    neurons: NeuronTable, stretches: Sequence[Stretch], *, signals: str, notes: list[str], make_source: Callable[[], RecordingSource]
) -> Recording:
    """Return one recording with a trial per stretch.

    Stretches that follow each other in time keep their times; those that overlap (each counted from its own start) are laid end to end
    with a gap of 1 s, and the notes say so.
    """
    for k, stretch in enumerate(stretches):
        _cover_spikes(stretch, k, notes)
    order = np.argsort([stretch.start_ns for stretch in stretches], kind="stable")
    ordered = [stretches[k] for k in order]
    shifts = [0] * len(ordered)
    if any(later.start_ns < earlier.stop_ns for earlier, later in zip(ordered, ordered[1:], strict=False)):
        ordered, shifts = list(stretches), _laid_end_to_end(stretches)
        notes.append(f"neo: the {len(stretches)} segments overlap in time; they were laid end to end with gaps of 1 s.")
    pairs = list(zip(ordered, shifts, strict=True))
    trials = TrialTable.make(
        [stretch.start_ns + shift for stretch, shift in pairs],
        [stretch.stop_ns + shift for stretch, shift in pairs],
        conditions=[stretch.condition for stretch in ordered],
    )
    names = dict.fromkeys(name for stretch in ordered for name in stretch.events)
    none = np.zeros(0, np.int64)
    return from_rows(
        Recording,
        np.concatenate([stretch.times_ns + shift for stretch, shift in pairs]),
        np.concatenate([stretch.neuron for stretch in ordered]),
        neurons,
        trials,
        events={name: np.concatenate([stretch.events.get(name, none) + shift for stretch, shift in pairs]) for name in names},
        signals=_joined_signals(ordered, shifts, trials, signals, notes),
        source=make_source(),
    )


def _cover_spikes(stretch: Stretch, number: int, notes: list[str]) -> None:
    """Widen a stretch that ends at or before its last spike, since bins cover [start, stop)."""
    if not stretch.times_ns.size:
        return
    first, last = int(stretch.times_ns.min()), int(stretch.times_ns.max())
    if first < stretch.start_ns:
        notes.append(
            f"neo: segment {number} starts at {stretch.start_ns / NS_PER_S:g} s, its first spike at {first / NS_PER_S:g} s; widened."
        )
        stretch.start_ns = first
    if last >= stretch.stop_ns:
        stop = -(-(last + 1) // NS_PER_MS) * NS_PER_MS
        notes.append(
            f"neo: segment {number} stops at {stretch.stop_ns / NS_PER_S:g} s, its last spike is at {last / NS_PER_S:g} s; "
            f"widened to {stop / NS_PER_S:g} s."
        )
        stretch.stop_ns = stop


def _laid_end_to_end(stretches: Sequence[Stretch]) -> list[int]:
    shifts, at = [], stretches[0].start_ns
    for stretch in stretches:
        shifts.append(at - stretch.start_ns)
        at += stretch.stop_ns - stretch.start_ns + _GAP_NS
    return shifts


def _joined_signals(
    stretches: Sequence[Stretch], shifts: Sequence[int], trials: TrialTable, which: str, notes: list[str]
) -> dict[str, Signal]:
    """Return the signals that every stretch has, each joined over the stretches."""
    names = [name for name in stretches[0].signals if all(name in stretch.signals for stretch in stretches)]
    partial = sorted({name for stretch in stretches for name in stretch.signals} - set(names))
    notes.extend(f"neo: signal {name!r} is not in every segment and was left out." for name in partial)

    def reader(name: str) -> Callable[[], Signal]:
        return lambda: join_signals([stretch.signals[name]() for stretch in stretches], shifts)

    sizes = {name: sum(stretch.signal_sizes[name] for stretch in stretches) for name in names}
    return choose_signals({name: reader(name) for name in names}, sizes, trials, which, "neo", notes)


# -- neo.Block ----------------------------------------------------------------------------------------------------------------------------


def read_blocks(
    blocks: Sequence[Any], *, signals: str, notes: list[str], make_source: Callable[[], RecordingSource], what: str
) -> Recording:
    """Return the recording of neo blocks: a trial per segment; neurons are matched over segments by id, name, or position.

    Raises
    ------
    ReadError
        If there is no spike train, or segments have different numbers of trains without names.
    """
    segments = [segment for block in blocks for segment in block.segments]
    filled = [segment for segment in segments if len(segment.spiketrains)]
    if not filled:
        n_signals = sum(len(segment.analogsignals) for segment in segments)
        raise NoSpikeTrainsError(
            f"no spike trains found in {what}: it holds {n_signals} signal{'s' * (n_signals != 1)} and no spike train."
        )
    if len(filled) < len(segments):
        notes.append(f"neo: {len(segments) - len(filled)} of {len(segments)} segments hold no spike train and were left out.")
    keys = _train_keys(filled, what, notes)
    row_of = {key: row for row, key in enumerate(dict.fromkeys(key for segment_keys in keys for key in segment_keys))}
    first_train = {}
    for segment, segment_keys in zip(filled, keys, strict=True):
        for train, key in zip(segment.spiketrains, segment_keys, strict=True):
            first_train.setdefault(key, train)
    names = [str(getattr(first_train[key], "name", None) or key) for key in row_of]
    columns = annotation_columns([dict(first_train[key].annotations) for key in row_of])
    neurons = NeuronTable.make(np.asarray([str(key) for key in row_of]), labels=names, columns=columns)
    stretches = [_block_stretch(segment, [row_of[key] for key in segment_keys]) for segment, segment_keys in zip(filled, keys, strict=True)]
    return assemble(neurons, stretches, signals=signals, notes=notes, make_source=make_source)


def _train_keys(segments: Sequence[Any], what: str, notes: list[str]) -> list[list[str]]:
    """Return a key per train and segment that tells neurons apart: annotation id, unit_id, the train's name, or its position."""
    ways: list[tuple[str, Callable[[Any], object]]] = [
        ("the annotation 'id'", lambda train: train.annotations.get("id")),
        ("the name", lambda train: train.name),
        ("the annotation 'unit_id'", lambda train: train.annotations.get("unit_id")),
    ]
    for how, key in ways:
        keys = [[key(train) for train in segment.spiketrains] for segment in segments]
        if all(k not in (None, "") for row in keys for k in row) and all(len({str(k) for k in row}) == len(row) for row in keys):
            if len(segments) > 1:
                notes.append(f"neo: neurons are matched over segments by {how} of their trains.")
            return [[str(k) for k in row] for row in keys]
    counts = {len(segment.spiketrains) for segment in segments}
    if len(counts) > 1:
        raise ReadError(
            f"{what}: segments hold {min(counts)} to {max(counts)} spike trains without names; which neuron is which is unknown."
        )
    if len(segments) > 1:
        notes.append("neo: neurons are matched over segments by the position of their trains.")
    return [[str(i) for i in range(len(segment.spiketrains))] for segment in segments]


def annotation_columns(annotations: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the annotations that are one number or text for every train, as columns."""
    if not annotations:
        return {}
    columns = {}
    for name in annotations[0]:
        values = [about.get(name) for about in annotations]
        if name in ("id", "nix_name", "file_origin", "name", "description") or not all(
            isinstance(v, str | int | float | np.generic) for v in values
        ):
            continue
        columns[name] = np.asarray([v.item() if isinstance(v, np.generic) else v for v in values])
    return columns


def quantity_ns(quantity: Any) -> np.ndarray:
    """Return times with a neo unit as int64 ns."""
    unit = quantity.dimensionality.string
    if unit not in TIME_UNITS_NS:
        quantity, unit = quantity.rescale("s"), "s"
    return times_to_ns(np.asarray(quantity.magnitude), unit=unit)


def _block_stretch(segment: Any, rows: Sequence[int]) -> Stretch:
    trains = [quantity_ns(train.times).ravel() for train in segment.spiketrains]
    stretch = Stretch(
        np.concatenate(trains),
        np.repeat(np.asarray(rows, dtype=np.int64), [len(train) for train in trains]),
        min(int(quantity_ns(train.t_start)) for train in segment.spiketrains),
        max(int(quantity_ns(train.t_stop)) for train in segment.spiketrains),
        condition=str(segment.annotations.get("condition", "")),
    )
    for event in segment.events:
        stretch.events |= split_by_label(event.name or "event", quantity_ns(event.times).ravel(), event.labels)
    for epoch in segment.epochs:
        times, name = quantity_ns(epoch.times).ravel(), epoch.name or "epoch"
        stretch.events |= split_by_label(name, times, epoch.labels) | {f"{name}.stop": times + quantity_ns(epoch.durations).ravel()}
    for number, signal in enumerate(segment.analogsignals):
        name = signal.name or f"signal {number}"
        stretch.signals[name] = _signal_of(signal)
        stretch.signal_sizes[name] = int(np.prod(signal.shape))
    return stretch


def _signal_of(signal: Any) -> Callable[[], Signal]:
    def read() -> Signal:
        values = np.asarray(signal.magnitude)
        rate = float(signal.sampling_rate.rescale("Hz").magnitude)
        return Signal(values.reshape(len(values), -1), rate, int(quantity_ns(signal.t_start)), signal.dimensionality.string)

    return read


# -- neo.rawio ----------------------------------------------------------------------------------------------------------------------------


def read_raw(raw: Any, *, signals: str, notes: list[str], make_source: Callable[[], RecordingSource], what: str) -> Recording:
    """Return the recording of a parsed raw reader, column by column, without making neo objects.

    Raises
    ------
    ReadError
        If its header lists no spike channel.
    """
    header = raw.header
    channels = header["spike_channels"]
    if not len(channels):
        n_signals = len(header["signal_channels"])
        raise NoSpikeTrainsError(
            f"no spike trains found in {what}: it holds {n_signals} signal{'s' * (n_signals != 1)} and no spike train."
        )
    about = [dict(found) for found in raw.raw_annotations["blocks"][0]["segments"][0]["spikes"]]
    ids = [str(i) for i in channels["id"]]
    if len(set(ids)) < len(ids) or not all(ids):
        ids = [str(i) for i in channels["name"]]
    if len(set(ids)) < len(ids) or not all(ids):
        ids = [str(i) for i in range(len(channels))]
        notes.append("neo: the file's unit names repeat; neurons are numbered in its order.")
    columns = annotation_columns(about)
    if "unit_id" in columns and columns["unit_id"].dtype.kind in "iu":
        # unit 0 is what nobody sorted, 255 what was sorted out as noise (Blackrock, Neuralynx)
        columns["is_sorted"] = (columns["unit_id"] > 0) & (columns["unit_id"] != 255)
    neurons = NeuronTable.make(np.asarray(ids), labels=channels["name"].astype(str), columns=columns)
    stretches = [_raw_stretch(raw, block, segment) for block in range(header["nb_block"]) for segment in range(header["nb_segment"][block])]
    return assemble(neurons, stretches, signals=signals, notes=notes, make_source=make_source)


def _raw_stretch(raw: Any, block: int, segment: int) -> Stretch:
    times = []
    for channel in range(len(raw.header["spike_channels"])):
        stamps = raw.get_spike_timestamps(block_index=block, seg_index=segment, spike_channel_index=channel)
        times.append(s_to_ns(raw.rescale_spike_timestamp(stamps, "float64")))
    stretch = Stretch(
        np.concatenate(times),
        np.repeat(np.arange(len(times)), [len(train) for train in times]),
        int(s_to_ns(raw.segment_t_start(block, segment))),
        int(s_to_ns(raw.segment_t_stop(block, segment))),
    )
    for index, (name, _, kind) in enumerate(raw.header["event_channels"]):
        stamps, durations, labels = raw.get_event_timestamps(block_index=block, seg_index=segment, event_channel_index=index)
        if not len(stamps):
            continue
        name = str(name).replace("\0", "")
        at = s_to_ns(raw.rescale_event_timestamp(stamps, "float64", index))
        stretch.events |= split_by_label(name, at, labels)
        if durations is not None and kind == b"epoch":
            stretch.events[f"{name}.stop"] = at + s_to_ns(raw.rescale_epoch_duration(durations, "float64", index))
    for stream in range(len(raw.header["signal_streams"])):
        name = str(raw.header["signal_streams"][stream]["name"]) or f"signals {stream}"
        n_samples = raw.get_signal_size(block, segment, stream)
        stretch.signals[name] = _raw_signal(raw, block, segment, stream)
        stretch.signal_sizes[name] = int(n_samples) * int(raw.signal_channels_count(stream))
    return stretch


def _raw_signal(raw: Any, block: int, segment: int, stream: int) -> Callable[[], Signal]:
    def read() -> Signal:
        chunk = raw.get_analogsignal_chunk(block_index=block, seg_index=segment, stream_index=stream)
        values = raw.rescale_signal_raw_to_float(chunk, dtype="float32", stream_index=stream)
        start_ns = int(s_to_ns(raw.get_signal_t_start(block, segment, stream)))
        mine = raw.header["signal_channels"][raw.header["signal_channels"]["stream_id"] == raw.header["signal_streams"][stream]["id"]]
        units = set(mine["units"].astype(str))
        unit = units.pop() if len(units) == 1 else ""
        return Signal(values, float(raw.get_signal_sampling_rate(stream)), start_ns, unit, tuple(mine["name"].astype(str)))

    return read
