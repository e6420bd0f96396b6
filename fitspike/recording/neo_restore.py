"""The way back from a neo.Block that `to_neo` made: annotations hold in integers what neo holds in floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fitspike.recording.making import from_rows
from fitspike.recording.neo_content import quantity_ns
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable

MARK = "fitspike_version"
"""Annotation of a block that `to_neo` made."""
COLUMN, TRIAL_COLUMN = "column_", "trial_column_"
TRIAL_TIMES = ("start_ns", "stop_ns", "warmup_ns", "offset_ns")


def is_ours(block: Any) -> bool:
    """Return whether a block was made by `to_neo`."""
    return MARK in block.annotations


def restore(block: Any) -> Recording:
    """Return the recording that `to_neo` was given."""
    trial_segments = [segment for segment in block.segments if segment.annotations.get("role") == "trial"]
    with_trains = [segment for segment in block.segments if len(segment.spiketrains)]
    shared = [segment for segment in block.segments if segment.annotations.get("role") == "shared"]
    trains = with_trains[0].spiketrains if with_trains else []
    bin_width = block.annotations.get("bin_width_ns")
    times, rows, counts = _spikes(with_trains, is_binned=bin_width is not None)
    signals = [signal for segment in shared for signal in segment.analogsignals]
    events = [event for segment in shared for event in segment.events]
    return from_rows(
        Recording,
        times,
        rows,
        NeuronTable.make(
            np.asarray([train.annotations["id"] for train in trains], dtype=str),
            labels=np.asarray([train.name for train in trains], dtype=str),
            populations=np.asarray([train.annotations["population"] for train in trains], dtype=str),
            columns=_columns([train.annotations for train in trains], COLUMN),
        ),
        _trials([segment.annotations for segment in trial_segments]),
        {signal.name: _signal(signal) for signal in signals},
        {event.name: quantity_ns(event.times).ravel() for event in events},
        RecordingSource(
            **{name: str(block.annotations.get(f"source_{name}", "")) for name in ("path", "sha256", "reader", "reader_version")}
        ),
        count=counts,
        bin_width=None if bin_width is None else int(bin_width),
    )


def _spikes(segments: Sequence[Any], *, is_binned: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return times, rows and counts. Where trials overlap, a spike is in several segments: it is taken from the first that covers it."""
    times, rows, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    order = sorted(segments, key=lambda s: (s.annotations["role"] != "trial", s.annotations.get("start_ns", 0)))
    covered = np.iinfo(np.int64).min
    for segment in order:
        is_trial = segment.annotations["role"] == "trial"
        for row, train in enumerate(segment.spiketrains):
            at = quantity_ns(train.times).ravel()
            new = at >= covered if is_trial else np.ones(len(at), dtype=bool)
            times.append(at[new])
            rows.append(np.full(int(new.sum()), row))
            if is_binned:
                counts.append(np.asarray(train.array_annotations["count"], dtype=np.int64)[new])
        if is_trial:
            covered = max(covered, int(segment.annotations["stop_ns"]))
    return np.concatenate(times), np.concatenate(rows), np.concatenate(counts) if is_binned else None


def _columns(annotations: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, np.ndarray]:
    names = [name for name in annotations[0] if name.startswith(prefix)] if annotations else []
    return {name.removeprefix(prefix): np.asarray([about[name] for about in annotations]) for name in names}


def _trials(annotations: Sequence[Mapping[str, Any]]) -> TrialTable:
    times = {name: np.asarray([about[name] for about in annotations], dtype=np.int64) for name in TRIAL_TIMES}
    return TrialTable.make(
        times["start_ns"],
        times["stop_ns"],
        warmup_ns=times["warmup_ns"],
        offset_ns=times["offset_ns"],
        conditions=np.asarray([about["condition"] for about in annotations], dtype=str),
        columns=_columns(annotations, TRIAL_COLUMN),
    )


def _signal(signal: Any) -> Signal:
    about = signal.annotations
    values = np.asarray(signal.magnitude).astype(about["stored_dtype"])
    return Signal(values, float(about["sampling_rate_hz"]), int(about["start_ns"]), str(about["unit"]), tuple(about["channels"]))
