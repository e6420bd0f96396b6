"""Times in integer nanoseconds, bin widths on that grid, and the unit strings a parameter may carry."""

from __future__ import annotations

import numpy as np

from fitspike.errors import BinWidthError, InvalidInputError, UnitError, did_you_mean

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
_MOST_S = 9.2e9  # of int64 nanoseconds: 292 years

TIME_UNITS_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0, "min": 60e9}

PARAMETER_UNITS = frozenset(
    {
        "1",
        "ms",
        "s",
        "ns",
        "Hz",
        "mV",
        "V",
        "nA",
        "pA",
        "nS",
        "pF",
        "nF",
        "MOhm",
        "mV/ms",
        "mV*ms",
        "1/mV",
        "1/ms",
        "nats",
        "LSB",
        "um",
    }
)


def s_to_ns(seconds: np.ndarray | float) -> np.ndarray:
    """Return seconds as int64 nanoseconds, rounded to the nearest one.

    Raises
    ------
    InvalidInputError
        If a time is NaN, infinite, or beyond what int64 holds (292 years).
    """
    seconds = np.asarray(seconds, dtype=np.float64)
    is_held = np.abs(seconds) < _MOST_S  # not `>=`: NaN compares false
    if not is_held.all():
        first = seconds[~is_held].ravel()[0]
        raise InvalidInputError(
            f"a time is {first:g} s; expected a finite number of seconds. Is its unit right? Leave out what has no limit."
        )
    return np.rint(seconds * NS_PER_S).astype(np.int64)


def ns_to_s(nanoseconds: np.ndarray | int) -> np.ndarray:
    """Return integer nanoseconds as float64 seconds."""
    return np.asarray(nanoseconds, dtype=np.float64) / NS_PER_S


def bin_width_ns(dt_ms: float) -> int:
    """Return a bin width in whole nanoseconds.

    Raises
    ------
    BinWidthError
        If `dt_ms` is not finite, not positive, or not a whole number of nanoseconds.
    """
    if not np.isfinite(dt_ms) or dt_ms <= 0:
        raise BinWidthError(f"dt_ms={dt_ms!r} is not a bin width. Use a positive number of milliseconds, such as dt_ms=1.0.")
    nanoseconds = round(dt_ms * NS_PER_MS)
    # 1e-6 ns: the rounding error of a float64 product of this size, far below the grid.
    if nanoseconds < 1 or abs(dt_ms * NS_PER_MS - nanoseconds) > 1e-6 * max(1.0, dt_ms):
        near = max(1, nanoseconds) / NS_PER_MS
        raise BinWidthError(
            f"dt_ms={dt_ms!r} is not a whole number of nanoseconds. Use dt_ms={near:.6f}, or a round width such as 0.25, 0.5 or 1.0."
        )
    return nanoseconds


def time_unit_ns(unit: str) -> float:
    """Return how many nanoseconds one `unit` of time is.

    Raises
    ------
    UnitError
        For anything but "s", "ms", "us", "ns" and "min".
    """
    if unit not in TIME_UNITS_NS:
        raise UnitError(
            f"unknown time unit {unit!r}{did_you_mean(unit, TIME_UNITS_NS)} Known: {', '.join(TIME_UNITS_NS)}. "
            "For sampling points give the sampling rate instead."
        )
    return TIME_UNITS_NS[unit]


def check_parameter_unit(unit: str) -> None:
    """Raise UnitError unless `unit` is one that a ParamSpec may carry ("1" is dimensionless)."""
    if unit not in PARAMETER_UNITS:
        raise UnitError(
            f"unknown parameter unit {unit!r}{did_you_mean(unit, PARAMETER_UNITS)} Known: {', '.join(sorted(PARAMETER_UNITS))}."
        )
