"""NWB 2 files through pynwb: units with any observation intervals, unit columns, electrodes' region, interval tables, signals.

Neo's NWB reader drops trials and unit columns and fails on units without observation intervals, hence this one.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError, did_you_mean
from fitspike.recording.making import from_rows
from fitspike.recording.nwb_signals import signals_of
from fitspike.recording.reading import choose_signals, contradiction, require, signature_of, source_of
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable, TrialTable
from fitspike.units import NS_PER_MS, NS_PER_S, s_to_ns

_END_GRID_NS = 10 * NS_PER_MS
_OWN_COLUMNS = ("spike_times", "obs_intervals", "electrodes", "electrode_group")
INTERVALS = ("common", "any", "none")


class NwbReader:
    """Reads the Units table of an NWB file."""

    name = "nwb"
    extensions = (".nwb",)

    def can_read(self, path: Path) -> bool | str:
        """Return True for an HDF5 file named .nwb, or one that states an NWB version."""
        if not path.is_file():
            return "no file"
        found = signature_of(path)
        if found is None or found.label != "an HDF5 file":
            return contradiction(path) if path.suffix.lower() == ".nwb" else "the content is not HDF5"
        if path.suffix.lower() == ".nwb":
            return True
        h5py = require("h5py", extra="nwb", purpose="reading HDF5 files")
        try:
            with h5py.File(path, "r") as file:
                return "nwb_version" in file.attrs or "the HDF5 file states no nwb_version"
        except OSError as error:
            return f"the HDF5 file does not open: {error}"

    def read(
        self,
        path: Path,
        *,
        trials: str | None = None,
        condition: str | None = None,
        intervals: str = "common",
        signals: str = "auto",
        start_s: float | None = None,
        stop_s: float | None = None,
    ) -> Recording:
        """Return the recording of the Units table. Interval tables (trials, epochs, ...) become events: "trials", "trials.stop".

        Parameters
        ----------
        trials : name of an interval table, such as "trials", to be the recording's trials, with its columns. Default: one trial per
            observation interval, or a single one.
        condition : column of that table to be the trials' condition
        intervals : "common" keeps the time in which every unit was observed, "any" in which some unit was, "none" ignores the intervals
        signals : "auto" reads those that cover all trials and are not huge, "all", or "none"; the notes name those left out
        start_s, stop_s : of the recording where no interval says it. Default: 0 and the last spike.

        Raises
        ------
        ReadError
            If the file does not open or holds no spike train.
        MissingDependencyError
            Without pynwb.
        """
        if intervals not in INTERVALS:
            raise ReadError(f"intervals={intervals!r}{did_you_mean(intervals, INTERVALS)} Known: {', '.join(INTERVALS)}.")
        pynwb = require("pynwb", extra="nwb", purpose="reading NWB files")
        notes: list[str] = []
        with warnings.catch_warnings():
            # pynwb warns of cached namespaces of other versions in most files
            warnings.simplefilter("ignore")
            try:
                io = pynwb.NWBHDF5IO(str(path), mode="r", load_namespaces=True)
            except (OSError, KeyError, TypeError, ValueError) as error:
                raise ReadError(f"{path} does not open as NWB: {error}") from error
            with io:
                try:
                    content = io.read()
                except Exception as error:
                    raise ReadError(f"{path} is HDF5 but not readable as NWB 2 ({type(error).__name__}: {error}).") from error
                units = _units_table(content, path, notes)
                times, rows, neurons = _spikes(units, path, notes)
                tables = _interval_tables(content)
                if trials is not None:
                    table = _trials_from(tables, trials, condition)
                else:
                    table = _observed(units, intervals, notes) if start_s is None and stop_s is None else None
                    table = table if table is not None else _one_trial(times, start_s, stop_s, notes)
                events = _events(tables, notes)
                found, sizes = signals_of(content, pynwb, notes)
                kept = choose_signals(found, sizes, table, signals, self.name, notes)
        source = source_of(path, self.name, pynwb.__version__, notes)
        return from_rows(Recording, times, rows, neurons, table, kept, events, source)


def _units_table(content: Any, path: Path, notes: list[str]) -> Any:
    """Return the file's Units table, in a processing module if not in its place."""
    tables = [item for item in content.objects.values() if getattr(item, "neurodata_type", "") == "Units"]
    units = content.units if content.units is not None else (tables[0] if tables else None)
    if units is None or "spike_times" not in units.colnames or not len(units.id):
        series = sorted({item.name for item in content.objects.values() if hasattr(item, "rate") and hasattr(item, "data")})
        what = "no Units table" if units is None else "a Units table without spike times" if len(units.id) else "an empty Units table"
        listed = f", and the time series {', '.join(series[:5])}" if series else ""
        raise NoSpikeTrainsError(f"no spike trains found in {path}: it holds {what}{listed}.")
    if len(tables) > 1:
        notes.append(f"nwb: the file holds {len(tables)} Units tables; {units.name!r} was read.")
    return units


def _spikes(units: Any, path: Path, notes: list[str]) -> tuple[np.ndarray, np.ndarray, NeuronTable]:
    index = units["spike_times"]
    ends = np.asarray(index.data[:], dtype=np.int64)
    flat = np.asarray(index.target.data[:], dtype=np.float64)
    counts = np.diff(np.concatenate([[0], ends]))
    if not flat.size:
        raise NoSpikeTrainsError(f"no spike trains found in {path}: its {len(ends)} units hold no spike.")
    if not np.isfinite(flat).all():
        raise ReadError(f"{path}: {np.count_nonzero(~np.isfinite(flat))} spike times are NaN or infinite. Remove them from the file.")
    neurons = NeuronTable.make(np.asarray(units.id[:]), columns=_unit_columns(units, notes))
    return s_to_ns(flat), np.repeat(np.arange(len(ends)), counts), neurons


def _unit_columns(units: Any, notes: list[str]) -> dict[str, np.ndarray]:
    """Return the columns with one number or text per unit, and region and group of the electrodes."""
    n_units = len(units.id)
    columns: dict[str, np.ndarray] = {}
    left_out = []
    for name in units.colnames:
        if name in _OWN_COLUMNS:
            continue
        column = units[name]
        values = np.asarray(column.data[:]) if not hasattr(column, "target") else None
        if values is None or values.shape != (n_units,):
            left_out.append(name)
            continue
        texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
        if values.dtype.kind in "biuf":
            columns[name] = values
        elif all(isinstance(text, str) for text in texts):
            columns[name] = np.asarray(texts)
        else:
            left_out.append(name)
    if left_out:
        notes.append(f"nwb: unit columns {', '.join(left_out)} hold more than one number or text per unit and were left out.")
    if "electrodes" in units.colnames:
        columns |= _electrode_columns(units["electrodes"], n_units, notes)
    if "electrode_group" in units.colnames:
        groups = units["electrode_group"].data[:]
        columns["electrode_group"] = np.asarray([group.name for group in groups])
        columns.setdefault("region", np.asarray([str(group.location) for group in groups]))
    return columns


def _electrode_columns(index: Any, n_units: int, notes: list[str]) -> dict[str, np.ndarray]:
    """Return the row and the location of each unit's first electrode."""
    region = index.target if hasattr(index, "target") else index
    flat = np.asarray(region.data[:], dtype=np.int64)
    ends = np.asarray(index.data[:], dtype=np.int64) if hasattr(index, "target") else np.arange(1, n_units + 1)
    starts = np.concatenate([[0], ends[:-1]])
    has_one = ends > starts
    first = np.where(has_one, flat[np.minimum(starts, len(flat) - 1)] if flat.size else -1, -1)
    columns = {"electrode": first}
    if "location" in region.table.colnames:
        locations = np.asarray([str(text) for text in region.table["location"].data[:]])
        columns["region"] = np.where(has_one, locations[first], "")
    if (ends - starts > 1).any():
        notes.append("nwb: units have several electrodes; columns 'electrode' and 'region' are of the first.")
    return columns


def _one_trial(times_ns: np.ndarray, start_s: float | None, stop_s: float | None, notes: list[str]) -> TrialTable:
    start = min(0, int(times_ns.min())) if start_s is None else int(s_to_ns(start_s))
    if stop_s is not None:
        return TrialTable.make([start], [int(s_to_ns(stop_s))])
    stop = -(-(int(times_ns.max()) + 1) // _END_GRID_NS) * _END_GRID_NS
    notes.append(
        f"nwb: no observation intervals are used; the recording is taken to run from {start / NS_PER_S:g} to {stop / NS_PER_S:g} s."
    )
    return TrialTable.make([start], [stop])


def _observed(units: Any, which: str, notes: list[str]) -> TrialTable | None:
    """Return one trial per interval in which all units (or any) were observed; None without observation intervals."""
    if "obs_intervals" not in units.colnames or which == "none":
        return None
    index = units["obs_intervals"]
    ends = np.asarray(index.data[:], dtype=np.int64)
    flat = s_to_ns(np.asarray(index.target.data[:], dtype=np.float64).reshape(-1, 2))
    per_unit = [merged(part) for part in np.split(flat, ends[:-1])]
    if any(not len(part) for part in per_unit):
        notes.append(f"nwb: {sum(not len(p) for p in per_unit)} units have no observation interval and are taken as always observed.")
        per_unit = [part for part in per_unit if len(part)]
    if not per_unit:
        return None
    combined = per_unit[0]
    for part in per_unit[1:]:
        combined = overlap(combined, part) if which == "common" else merged(np.concatenate([combined, part]))
    if not all(np.array_equal(part, per_unit[0]) for part in per_unit):
        covered = np.diff(combined).sum() / NS_PER_S
        longest = max(np.diff(part).sum() for part in per_unit) / NS_PER_S
        meaning = "all units were" if which == "common" else "some unit was"
        notes.append(
            f"nwb: units have different observation intervals; trials are the {covered:g} s in which {meaning} "
            f"observed (longest: {longest:g} s)."
        )
    if not len(combined):
        raise ReadError("no time in which all units were observed. Say intervals='any' to keep the time in which some were, or 'none'.")
    return TrialTable.make(combined[:, 0], combined[:, 1])


def merged(intervals: np.ndarray) -> np.ndarray:
    """Return intervals (n, 2) sorted, with those that touch or overlap joined."""
    if not len(intervals):
        return intervals
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    joined = [ordered[0].tolist()]
    for start, stop in ordered[1:].tolist():
        if start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([start, stop])
    return np.asarray(joined, dtype=np.int64)


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intervals (n, 2) that lie in both of two sorted lists of intervals."""
    found, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        start, stop = max(first[i, 0], second[j, 0]), min(first[i, 1], second[j, 1])
        if stop > start:
            found.append((start, stop))
        if first[i, 1] < second[j, 1]:
            i += 1
        else:
            j += 1
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)


def _interval_tables(content: Any) -> dict[str, Any]:
    tables = {item.name: item for item in content.objects.values() if getattr(item, "neurodata_type", "") == "TimeIntervals"}
    return {name: table for name, table in tables.items() if len(table.id)}


def _trials_from(tables: dict[str, Any], name: str, condition: str | None) -> TrialTable:
    if name not in tables:
        raise ReadError(f"the file has no interval table {name!r}{did_you_mean(name, tables)} It has: {', '.join(tables) or 'none'}.")
    table = tables[name]
    columns = {column: _texts_or_numbers(table[column]) for column in table.colnames if column not in ("start_time", "stop_time")}
    columns = {column: values for column, values in columns.items() if values is not None}
    if condition is not None and condition not in columns:
        raise ReadError(
            f"table {name!r} has no column {condition!r}{did_you_mean(condition, columns)} It has: {', '.join(columns) or 'none'}."
        )
    return TrialTable.from_seconds(
        np.asarray(table["start_time"].data[:]),
        np.asarray(table["stop_time"].data[:]),
        conditions=None if condition is None else columns[condition],
        columns=columns,
    )


def _texts_or_numbers(column: Any) -> np.ndarray | None:
    if hasattr(column, "target"):
        return None
    values = np.asarray(column.data[:])
    if values.ndim != 1:
        return None
    if values.dtype.kind in "biuf":
        return values
    texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    return np.asarray(texts) if all(isinstance(text, str) for text in texts) else None


def _events(tables: dict[str, Any], notes: list[str]) -> dict[str, np.ndarray]:
    """Return starts and stops of every interval table, and its columns whose name ends with _time."""
    events: dict[str, np.ndarray] = {}
    for name, table in tables.items():
        for column in table.colnames:
            if not column.endswith("_time") or hasattr(table[column], "target"):
                continue
            times = np.asarray(table[column].data[:], dtype=np.float64)
            if (n_missing := np.count_nonzero(~np.isfinite(times))) > 0:
                notes.append(f"nwb: {n_missing} of {times.size} times of {name}.{column} are NaN and were left out.")
            key = {"start_time": name, "stop_time": f"{name}.stop"}.get(column, f"{name}.{column}")
            events[key] = s_to_ns(times[np.isfinite(times)])
    return events
