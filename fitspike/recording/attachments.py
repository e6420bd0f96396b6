"""Signals, events and condition labels from small files (.csv, .npy, .npz), to be attached to a recording.

docs/formats.md describes the columns and arrays; every error says which were expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fitspike.errors import ReadError
from fitspike.recording.array_tree import MAX_FILLED_GB, UNREADABLE
from fitspike.recording.reading import check_file
from fitspike.recording.tables import Signal
from fitspike.recording.text_tables import as_columns, read_lines, unit_in_name
from fitspike.units import s_to_ns, time_unit_ns

_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_JITTER = 0.25
"""Samples: sample times may lie this far from a regular grid. More, and nearest-sample averages would be wrong."""
_TRIAL_NAMES, _CONDITION_NAMES = ("trial", "trials", "row", "index"), ("condition", "conditions", "label", "labels")


@dataclass(frozen=True, eq=False)
class Attachment:
    """What a file adds to a recording: arguments of `Recording.attach`, and notes on what was guessed."""

    signals: Mapping[str, Signal] = field(default_factory=dict)
    events: Mapping[str, np.ndarray] = field(default_factory=dict)
    conditions: np.ndarray | None = None
    trial_columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_signals(
    path: str | Path, *, sampling_rate_hz: float | None = None, start_s: float | None = None, name: str | None = None
) -> Attachment:
    """Return the signals of a file.

    .csv, .tsv, .txt: a header, first column the time of each sample (s, or the unit its name ends with), then one column per channel; the
    signal is named after the file. .npy: (n_samples,) or (n_samples, n_channels), with `sampling_rate_hz`. .npz: one such array per signal
    under its name, with the sampling rate given or as the entry `sampling_rate_hz` (and `start_s`), or sample times as the entry `time_s`.
    Without a word about it the first sample is at 0 s.

    Sample times must be regular to a quarter of a sample; missing samples become NaN, which `Recording.bin` refuses where it needs them.

    Raises
    ------
    ReadError
        If the file cannot be read so, its times are irregular, or they contradict `sampling_rate_hz` or `start_s` by a quarter of a sample.
    """
    path = Path(path)
    name = name or path.stem
    if path.suffix.lower() in _TEXT_SUFFIXES:
        columns = _numbers(path)
        header, *channels = columns
        if not channels:
            raise ReadError(f"{path} has one column; expected the time of each sample, then one column per channel.")
        times = columns[header] * (time_unit_ns(unit_in_name(header) or "s") / 1e9)
        values = np.column_stack([columns[channel] for channel in channels])
        signal, notes = _on_grid(times, values, name, path, tuple(channels))
        return Attachment(signals={name: _as_given(signal, sampling_rate_hz, start_s, path)}, notes=notes)
    arrays = _arrays(path, name)
    rate = _agreed(arrays.pop("sampling_rate_hz", None), sampling_rate_hz, "sampling_rate_hz", path)
    start = _agreed(arrays.pop("start_s", None), start_s, "start_s", path)
    times = arrays.pop("time_s", None)
    if not arrays:
        raise ReadError(f"{path} holds no signal beside its times. Add an array (n_samples, n_channels).")
    if times is None and rate is None:
        raise ReadError(f"{path} does not say its sampling rate. Give rate=HZ, or store it in a .npz as 'sampling_rate_hz' or 'time_s'.")
    if times is not None and (times.dtype.kind not in "iuf" or times.ndim != 1):
        raise ReadError(f"array 'time_s' of {path} is {times.dtype} of shape {times.shape}; expected times (n_samples,) in seconds.")
    signals: dict[str, Signal] = {}
    notes: tuple[str, ...] = ()
    for key, values in arrays.items():
        if values.dtype.kind not in "iufb" or values.ndim not in (1, 2) or not values.size:
            raise ReadError(f"array {key!r} of {path} is {values.dtype} of shape {values.shape}; expected numbers (n_samples, n_channels).")
        values = values.reshape(len(values), -1)
        if times is None:
            signals[key] = Signal(values, rate, int(s_to_ns(start or 0.0)))
        else:
            signal, more = _on_grid(times.astype(np.float64), values, key, path, ())
            signals[key] = _as_given(signal, rate, start, path)
            notes += more
    return Attachment(signals=signals, notes=notes)


def read_events(path: str | Path, *, name: str | None = None) -> Attachment:
    """Return the events of a file.

    .csv, .tsv, .txt: one column of times (named after the file), or a column of times and a column of names. A column whose name ends with
    a unit is in that unit, else in seconds. .npy: times (n_events,), s. .npz: one array of times, s, per name.

    Raises
    ------
    ReadError
        If the file cannot be read so.
    """
    path = Path(path)
    name = name or path.stem
    if path.suffix.lower() not in _TEXT_SUFFIXES:
        arrays = _arrays(path, name)
        for key, times in arrays.items():
            if times.dtype.kind not in "iuf" or times.ndim != 1:
                raise ReadError(f"array {key!r} of {path} is {times.dtype} of shape {times.shape}; expected times (n_events,) in seconds.")
        return Attachment(events=arrays)
    columns = _columns(path)
    header = next((column for column in columns if column.lower().startswith("time")), next(iter(columns)))
    times, names = columns.pop(header), next(iter(columns.values()), None)
    if times.dtype.kind != "f" or len(columns) > 1:
        raise ReadError(f"{path} has columns {', '.join([header, *columns])}; expected times, or times and names.")
    times = times * (time_unit_ns(unit_in_name(header) or "s") / 1e9)
    if names is None:
        return Attachment(events={name: times})
    names = _as_text(names)
    return Attachment(events={label: times[names == label] for label in dict.fromkeys(names.tolist())})


def read_conditions(path: str | Path, n_trials: int) -> Attachment:
    """Return one condition label per trial, and further trial columns where a file has them.

    .csv, .tsv, .txt: one label per line, or a header with a column "condition" and perhaps "trial" (rows from 0, in any order) and others,
    which become trial columns. .npy: labels (n_trials,). .npz: the entry "condition"; others become trial columns.

    Raises
    ------
    ReadError
        If the file cannot be read so, or does not name each of the `n_trials` trials once.
    """
    path = Path(path)
    if path.suffix.lower() in _TEXT_SUFFIXES:
        columns = _labels(path)
    else:
        columns = _arrays(path, "condition")
    names = {column.lower(): column for column in columns}
    trial = next((columns.pop(names[known]) for known in _TRIAL_NAMES if known in names), None)
    condition = next((columns.pop(names[known]) for known in _CONDITION_NAMES if known in names), None)
    for column, values in {"condition": condition, **columns}.items():
        if values is not None and (values.shape[:1] != (n_trials,) or (column == "condition" and values.ndim > 1)):
            raise ReadError(
                f"{path} gives {column!r} with shape {values.shape}, but the recording has {n_trials} trials; expected one value each."
            )
    if condition is None and not columns:
        raise ReadError(f"{path} has no column of labels. Name one 'condition'.")
    if trial is not None:
        if trial.dtype.kind == "U" or not np.array_equal(np.sort(trial, axis=None), np.arange(n_trials)) or trial.ndim != 1:
            raise ReadError(f"the trial column of {path} does not name each of the trials 0 to {n_trials - 1} once.")
        order = np.argsort(trial)
        columns = {column: values[order] for column, values in columns.items()}
        condition = None if condition is None else condition[order]
    return Attachment(conditions=None if condition is None else _as_text(condition), trial_columns=columns)


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a text file by name, float64 or text."""
    check_file(path)
    columns = as_columns(read_lines(path))
    if isinstance(columns, str):
        raise ReadError(f"{path} is no table: {columns}.")
    return columns


def _numbers(path: Path) -> dict[str, np.ndarray]:
    columns = _columns(path)
    for name, values in columns.items():
        if values.dtype.kind != "f":
            bad = next(text for text in values.tolist() if not _is_number(text))
            raise ReadError(f"column {name!r} of {path} holds {bad!r}; expected numbers. Write nan where a sample is missing.")
    return columns


def _labels(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a conditions file; one column without a known header is labels only."""
    check_file(path)
    lines = read_lines(path)
    rows = lines.filled
    known = (*_TRIAL_NAMES, *_CONDITION_NAMES)
    if rows and all(len(row) == 1 for row in rows) and rows[0][0].lower() not in known:
        return {"condition": np.array([row[0] for row in rows])}
    if rows and not any(name.lower() in known for name in rows[0]):
        raise ReadError(f"{path} has {len(rows[0])} columns but no header with 'condition'. Begin it with a line such as: trial,condition")
    return _columns(path)


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a .npy file (under `name`) or a .npz file."""
    check_file(path)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise ReadError(f"{path} has the suffix {path.suffix!r}; expected one of {', '.join((*_TEXT_SUFFIXES, '.npy', '.npz'))}.")
    try:
        if path.suffix.lower() == ".npy":
            return {name: np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except UNREADABLE as error:
        raise ReadError(f"{path} cannot be read: {error}. Save plain arrays with numpy.save or numpy.savez.") from error


def _agreed(stored: np.ndarray | None, given: float | None, what: str, path: Path) -> float | None:
    """Return the number that a file holds or that was given, None without either; ReadError where the two differ."""
    if stored is None:
        return given
    if stored.size != 1 or stored.dtype.kind not in "iuf":
        raise ReadError(f"array {what!r} of {path} is {stored.dtype} of shape {stored.shape}; expected one number.")
    value = float(stored.item())
    if given is not None and value != given:
        raise ReadError(f"{path} holds {what}={value:.9g}, but {given:.9g} was given. Leave that out, or correct the file.")
    return value


def _as_given(signal: Signal, rate_hz: float | None, start_s: float | None, path: Path) -> Signal:
    """Return a signal on its file's times with the rate and start that were given; ReadError where they move a sample too far."""
    own, own_start_s = signal.sampling_rate_hz, signal.start_ns / 1e9
    wrong = ""
    if rate_hz is not None and abs(rate_hz - own) * len(signal.values) > _JITTER * own:
        wrong = f"{rate_hz:.9g} Hz"
    if start_s is not None and abs(start_s - own_start_s) * own > _JITTER:
        wrong = f"a start at {start_s:.9g} s"
    if wrong:
        raise ReadError(
            f"the sample times of {path} are those of {own:.9g} Hz from {own_start_s:.9g} s, but {wrong} was given. "
            "Leave that out, or correct the times."
        )
    start_ns = signal.start_ns if start_s is None else int(s_to_ns(start_s))
    return replace(signal, sampling_rate_hz=own if rate_hz is None else rate_hz, start_ns=start_ns)


def _on_grid(times_s: np.ndarray, values: np.ndarray, name: str, path: Path, channels: tuple[str, ...]) -> tuple[Signal, tuple[str, ...]]:
    """Return a signal on the regular grid nearest to its sample times, NaN where samples are missing, and notes on what that changed."""
    if len(times_s) != len(values):
        raise ReadError(f"signal {name!r} of {path} has {len(values)} samples but {len(times_s)} times; expected one time each.")
    step = np.diff(times_s)
    if len(times_s) < 2 or not np.isfinite(times_s).all() or (step <= 0).any():
        raise ReadError(f"the sample times of {path} must be at least two, finite and increasing.")
    steps = np.maximum(1, np.rint(step / np.median(step)))
    n_missing = steps.sum() + 1 - len(times_s)
    needed = n_missing * values.shape[1] * 8 / 1e9
    if needed > MAX_FILLED_GB:
        widest = int(steps.argmax())
        raise ReadError(
            f"{path}: {steps[widest] - 1:.6g} samples are missing between {times_s[widest]:.9g} and {times_s[widest + 1]:.9g} s; NaN for "
            f"all that are missing would need {needed:.1f} GB, the limit is {MAX_FILLED_GB:.1f} GB. Remove the time that is wrong, or cut "
            "the file there and attach the part that you need."
        )
    row = np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
    period, start = np.polyfit(row, times_s, 1)
    off = np.abs(times_s - (start + period * row)).max() / period
    if off > _JITTER:
        raise ReadError(
            f"the sample times of {path} are irregular: up to {off:.2f} samples from a grid of {1 / period:.6g} Hz. "
            "Resample the signal first."
        )
    rate = float(f"{1 / period:.9g}")  # the digits beyond are those of the fit, not of the clock
    if n_missing:
        filled = np.full((int(row[-1]) + 1, values.shape[1]), np.nan)
        filled[row] = values
        values = filled
    notes = (f"signal {name!r} of {path.name}: sampled at {rate:.6g} Hz, {n_missing:.0f} missing samples set to NaN.",)
    return Signal(values, rate, int(s_to_ns(start)), "", channels), notes


def _as_text(values: np.ndarray) -> np.ndarray:
    """Return labels as text; whole numbers without a decimal point."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    return values.astype(str)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
