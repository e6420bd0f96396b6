"""Numbers of any time unit, or sampling points, to integer nanoseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitspike.errors import RecordingError, UnitError
from fitspike.units import NS_PER_S, time_unit_ns

_LARGEST_NS = 9e18


def times_to_ns(times: object, *, unit: str = "s", sampling_rate_hz: float | None = None) -> np.ndarray:
    """Return times as int64 nanoseconds, each the nearest one.

    With a sampling rate, `times` are sampling points: sample n of a whole-numbered rate lies at floor(n * 10**9 / rate + 1/2) ns, by
    integer arithmetic. The same time as a float64 of seconds gives the same nanosecond up to about 1e6 s, beyond which float64 itself is
    coarser. A bin edge that lies on the sampling grid is met exactly, so that sample n of 30 kHz falls into the 1 ms bin n // 30.

    Parameters
    ----------
    times : array of numbers, any shape
        A quantity (of the package quantities, or neo's SpikeTrain) is converted from its own unit.
    unit : "s", "ms", "us", "ns", "min", or "samples"
        Not used where a sampling rate is given.
    sampling_rate_hz : float, optional

    Raises
    ------
    RecordingError
        If a time is no number, NaN or infinite, or beyond the 285 years that int64 nanoseconds can hold.
    UnitError
        If the unit is unknown, or "samples" comes without a sampling rate.
    """
    if hasattr(times, "rescale") and hasattr(times, "magnitude") and sampling_rate_hz is None:
        times = _magnitude(times, unit)
    array = np.asarray(times)
    if array.size == 0:
        return np.zeros(array.shape, dtype=np.int64)
    if array.dtype.kind not in "iuf":
        raise RecordingError(f"spike times are of type {array.dtype}; expected numbers.")
    if sampling_rate_hz is not None and not (np.isfinite(sampling_rate_hz) and sampling_rate_hz > 0):
        raise RecordingError(f"the sampling rate is {sampling_rate_hz} Hz; expected a positive number.")
    if unit == "samples" and sampling_rate_hz is None:
        raise UnitError("times in samples need a sampling rate. Give sampling_rate_hz, such as 30000.")
    if array.dtype.kind == "f":
        n_bad = array.size - np.count_nonzero(np.isfinite(array))
        if n_bad:
            raise RecordingError(f"{n_bad} of {array.size} times are NaN or infinite. Remove them before loading.")
    scale = time_unit_ns(unit) if sampling_rate_hz is None else NS_PER_S / sampling_rate_hz
    largest = max(abs(float(array.min())), abs(float(array.max())))
    if largest * scale > _LARGEST_NS:
        what = f"{largest:g} {unit}" if sampling_rate_hz is None else f"sample {largest:g} at {sampling_rate_hz:g} Hz"
        raise RecordingError(f"a time of {what} is beyond what integer nanoseconds hold (285 years). Is the time unit right?")
    is_whole = array.dtype.kind in "iu"
    if sampling_rate_hz is None:
        if is_whole:
            return array.astype(np.int64) * int(scale)
        return np.rint(array.astype(np.float64) * scale).astype(np.int64)
    if float(sampling_rate_hz).is_integer() and (is_whole or bool((array == np.rint(array)).all())):
        rate = int(sampling_rate_hz)
        seconds, rest = np.divmod(array.astype(np.int64), rate)
        return seconds * NS_PER_S + (2 * rest * NS_PER_S + rate) // (2 * rate)
    return np.rint(array.astype(np.float64) * scale).astype(np.int64)


def _magnitude(quantity: Any, unit: str) -> np.ndarray:
    """Return the numbers of a quantity in a unit of time."""
    time_unit_ns(unit)
    try:
        return quantity.rescale(unit).magnitude
    except ValueError as error:
        raise UnitError(f"spike times are a quantity in {quantity.dimensionality}; expected a time.") from error
