"""The tables of a recording: its neurons, its trials, its signals, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fitspike.errors import Problems, RecordingError, UnknownNameError, did_you_mean
from fitspike.units import NS_PER_S, s_to_ns


def _text(values: object, n: int, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,):
        raise RecordingError(f"{what} has shape {array.shape}; expected one entry for each of {n} rows.")
    return array.astype(str) if array.dtype.kind != "U" else array


def _columns(columns: Mapping[str, object] | None, n: int, what: str) -> dict[str, np.ndarray]:
    checked = {}
    for name, values in (columns or {}).items():
        array = np.asarray(values)
        if array.dtype == object:
            array = array.astype(str)
        if array.shape[:1] != (n,):
            raise RecordingError(f"{what} column {name!r} has shape {array.shape}; expected one entry for each of {n} rows.")
        checked[str(name)] = array
    return checked


@dataclass(frozen=True, eq=False)
class NeuronTable:
    """One row per neuron. ids (n_neurons,) are unique texts; populations are "" where unknown; `columns` holds anything else."""

    ids: np.ndarray
    labels: np.ndarray
    populations: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        ids: object,
        *,
        labels: object | None = None,
        populations: object | None = None,
        columns: Mapping[str, object] | None = None,
    ) -> NeuronTable:
        """Return a table from anything array-like; labels default to the ids, populations to "".

        Raises
        ------
        RecordingError
            If ids repeat or a column has the wrong length.
        """
        array = np.asarray(ids)
        text = _text(array, array.size, "neuron ids")
        unique, counts = np.unique(text, return_counts=True)
        if (counts > 1).any():
            repeated = ", ".join(unique[counts > 1][:5])
            raise RecordingError(f"neuron ids repeat: {repeated}. Give every neuron its own id.")
        n = len(text)
        return cls(
            text,
            text if labels is None else _text(labels, n, "neuron labels"),
            np.full(n, "", dtype="<U1") if populations is None else _text(populations, n, "populations"),
            _columns(columns, n, "neuron"),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> np.ndarray:
        """Return a column by name ("id", "label" and "population" too); UnknownNameError lists the known ones."""
        own = {"id": self.ids, "ids": self.ids, "label": self.labels, "labels": self.labels}
        own |= {"population": self.populations, "populations": self.populations}
        known = {**own, **self.columns}
        if name not in known:
            names = ["id", "label", "population", *self.columns]
            raise UnknownNameError(f"no neuron column {name!r}{did_you_mean(name, names)} Columns: {', '.join(names)}.")
        return known[name]

    def select(self, index: np.ndarray) -> NeuronTable:
        """Return the rows of `index`."""
        columns = {name: values[index] for name, values in self.columns.items()}
        return NeuronTable(self.ids[index], self.labels[index], self.populations[index], columns)

    def with_columns(self, columns: Mapping[str, object]) -> NeuronTable:
        """Return the table with columns added or replaced; "label" and "population" replace those."""
        extra = dict(columns)
        labels = _text(extra.pop("label", self.labels), len(self), "neuron labels")
        populations = _text(extra.pop("population", self.populations), len(self), "populations")
        return NeuronTable(self.ids, labels, populations, {**self.columns, **_columns(extra, len(self), "neuron")})


@dataclass(frozen=True, eq=False)
class TrialTable:
    """One row per trial; bins cover [start, stop). A continuous recording is one trial.

    start_ns, stop_ns, warmup_ns, offset_ns : (n_trials,) int64. The first `warmup_ns` of a trial feed history and are not scored.
    `offset_ns` is how far into the trial that was recorded this one begins: above 0 where a time range or a split cut its beginning off.
    conditions : (n_trials,) str, "" where there is none.
    """

    start_ns: np.ndarray
    stop_ns: np.ndarray
    conditions: np.ndarray
    columns: Mapping[str, np.ndarray]
    warmup_ns: np.ndarray
    offset_ns: np.ndarray

    @classmethod
    def make(
        cls,
        start_ns: object,
        stop_ns: object,
        *,
        conditions: object | None = None,
        columns: Mapping[str, object] | None = None,
        warmup_ns: object | None = None,
        offset_ns: object | None = None,
    ) -> TrialTable:
        """Return a table from anything array-like; times in ns.

        Raises
        ------
        RecordingError
            If a trial stops before it starts, or a column has the wrong length; the text lists every problem.
        """
        for values in (start_ns, stop_ns):
            if np.asarray(values).dtype.kind == "f" and not np.isfinite(values).all():
                raise RecordingError("a trial starts or stops at a time that is NaN or infinite. Remove that trial or give its time.")
        start = np.atleast_1d(np.asarray(start_ns, dtype=np.int64))
        stop = np.atleast_1d(np.asarray(stop_ns, dtype=np.int64))
        if start.shape != stop.shape or start.ndim != 1:
            raise RecordingError(
                f"trial starts have shape {start.shape} and stops {stop.shape}; expected one start and one stop per trial."
            )
        n = len(start)
        problems = Problems("trials")
        for k in np.flatnonzero(stop < start)[:5]:
            problems.add(f"trial {k} stops at {stop[k] / NS_PER_S} s, before it starts at {start[k] / NS_PER_S} s.")
        leading = []
        for what, given in (("warm-up", warmup_ns), ("offset", offset_ns)):
            values = np.zeros(n, np.int64) if given is None else np.asarray(given, dtype=np.int64)
            if values.shape != (n,) or (values < 0).any():
                problems.add(f"{what} times have shape {values.shape}; expected {n} values, none negative.")
            leading.append(values)
        problems.raise_if_any(RecordingError)
        labels = np.full(n, "", dtype="<U1") if conditions is None else _text(conditions, n, "trial conditions")
        return cls(start, stop, labels, _columns(columns, n, "trial"), *leading)

    @classmethod
    def from_seconds(
        cls, start_s: object, stop_s: object, *, conditions: object | None = None, columns: Mapping[str, object] | None = None
    ) -> TrialTable:
        """Return a table from starts and stops in seconds, each (n_trials,).

        Raises
        ------
        RecordingError
            If a time is NaN or infinite, or as `make`.
        """
        times = [np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (start_s, stop_s)]
        if not all(np.isfinite(values).all() for values in times):
            raise RecordingError("a trial starts or stops at a time that is NaN or infinite. Remove that trial or give its time.")
        return cls.make(s_to_ns(times[0]), s_to_ns(times[1]), conditions=conditions, columns=columns)

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def duration_ns(self) -> np.ndarray:
        """Return each trial's length (n_trials,), ns."""
        return self.stop_ns - self.start_ns

    def column(self, name: str) -> np.ndarray:
        """Return a column by name ("condition" too); UnknownNameError lists the known ones."""
        known = {"condition": self.conditions, "conditions": self.conditions, **self.columns}
        if name not in known:
            names = ["condition", *self.columns]
            raise UnknownNameError(f"no trial column {name!r}{did_you_mean(name, names)} Columns: {', '.join(names)}.")
        return known[name]

    def select(self, index: np.ndarray) -> TrialTable:
        """Return the rows of `index`."""
        columns = {name: values[index] for name, values in self.columns.items()}
        own = (self.start_ns, self.stop_ns, self.conditions)
        return TrialTable(*(values[index] for values in own), columns, self.warmup_ns[index], self.offset_ns[index])

    def with_labels(self, *, conditions: object | None = None, columns: Mapping[str, object] | None = None) -> TrialTable:
        """Return the table with conditions replaced and columns added or replaced."""
        labels = self.conditions if conditions is None else _text(conditions, len(self), "trial conditions")
        return replace(self, conditions=labels, columns={**self.columns, **_columns(columns, len(self), "trial")})

    def narrow(self, start_ns: np.ndarray, stop_ns: np.ndarray) -> TrialTable:
        """Return the trials cut to new starts and stops inside the old ones; warm-up and offset follow."""
        moved = start_ns - self.start_ns
        warmup = np.minimum(np.maximum(self.warmup_ns - moved, 0), stop_ns - start_ns)
        return replace(self, start_ns=start_ns, stop_ns=stop_ns, warmup_ns=warmup, offset_ns=self.offset_ns + moved)

    def overlapping(self) -> np.ndarray:
        """Return which trials share time with another one, (n_trials,) bool."""
        order = np.argsort(self.start_ns, kind="stable")
        start, stop = self.start_ns[order], self.stop_ns[order]
        latest_before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(stop)[:-1]]) if len(order) else stop
        next_start = np.append(start[1:], np.iinfo(np.int64).max)
        shared = np.empty(len(order), dtype=bool)
        shared[order] = (start < latest_before) | (next_start < stop)
        return shared


@dataclass(frozen=True, eq=False)
class Signal:
    """A regularly sampled stimulus, current or behaviour. values (n_samples, n_channels), may be memory-mapped."""

    values: np.ndarray
    sampling_rate_hz: float
    start_ns: int = 0
    unit: str = ""
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim == 1:
            object.__setattr__(self, "values", self.values[:, None])
        if self.values.ndim != 2:
            raise RecordingError(f"signal values have shape {self.values.shape}; expected (n_samples, n_channels).")
        if not np.isfinite(self.sampling_rate_hz) or self.sampling_rate_hz <= 0:
            raise RecordingError(f"a signal's sampling rate is {self.sampling_rate_hz} Hz; expected a positive number.")
        if self.channels and len(self.channels) != self.values.shape[1]:
            raise RecordingError(f"{len(self.channels)} channel names for {self.values.shape[1]} channels.")

    @property
    def n_channels(self) -> int:
        """Return the number of channels."""
        return self.values.shape[1]

    @property
    def stop_ns(self) -> int:
        """Return the end of the last sample, ns."""
        return self.start_ns + round(len(self.values) * NS_PER_S / self.sampling_rate_hz)


@dataclass(frozen=True)
class RecordingSource:
    """Where a recording came from; `notes` lists everything its reader guessed, changed or left out."""

    path: str = ""
    sha256: str = ""
    reader: str = "arrays"
    reader_version: str = ""
    notes: tuple[str, ...] = ()
