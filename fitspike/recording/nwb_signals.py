"""Time series of NWB files (behaviour, stimulus, acquisition) as signals, not read before they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fitspike.recording.tables import Signal
from fitspike.units import s_to_ns

_JITTER = 0.25
"""Samples: how far sample times may lie from a regular grid."""


def signals_of(content: Any, pynwb: Any, notes: list[str]) -> tuple[dict[str, Callable[[], Signal]], dict[str, int]]:
    """Return name -> function that reads the signal, and name -> number of values, of every numeric, regularly sampled time series."""
    found: dict[str, Callable[[], Signal]] = {}
    sizes: dict[str, int] = {}
    for series in content.objects.values():
        if not isinstance(series, pynwb.TimeSeries):
            continue
        name = series.name if series.name not in found else f"{series.parent.name}/{series.name}"
        shape, kind = (
            getattr(series.data, "shape", np.shape(series.data)),
            getattr(series.data, "dtype", np.asarray(series.data[:1]).dtype).kind,
        )
        if isinstance(series, pynwb.image.ImageSeries) or len(shape) not in (1, 2) or not shape[0] or kind not in "biuf":
            notes.append(f"nwb: time series {name!r} ({series.neurodata_type}) is no numeric signal and was left out.")
            continue
        if series.rate is None and (reason := _irregular(series)):
            notes.append(f"nwb: signal {name!r} was left out ({reason}).")
            continue
        found[name] = _reader(series)
        sizes[name] = int(np.prod(shape))
    return found, sizes


def _irregular(series: Any) -> str:
    """Return in words why a series' timestamps are no regular grid, or an empty text if they are."""
    times = np.asarray(series.timestamps[:], dtype=np.float64)
    if len(times) < 2 or not np.isfinite(times).all():
        return "its timestamps are fewer than two or not finite"
    step = (times[-1] - times[0]) / (len(times) - 1)
    if step <= 0 or np.abs(times - times[0] - step * np.arange(len(times))).max() > _JITTER * step:
        return "its timestamps are not regular"
    return ""


def _reader(series: Any) -> Callable[[], Signal]:
    def read() -> Signal:
        values = np.asarray(series.data[:])
        if series.conversion != 1.0 or series.offset != 0.0:
            values = values * series.conversion + series.offset
        if series.rate is not None:
            return Signal(values, float(series.rate), int(s_to_ns(series.starting_time)), series.unit or "")
        times = np.asarray(series.timestamps[:], dtype=np.float64)
        return Signal(values, (len(times) - 1) / float(times[-1] - times[0]), int(s_to_ns(times[0])), series.unit or "")

    return read
