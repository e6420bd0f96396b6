"""A recording as `[data]` of a configuration or the options of a command describe it: file, attachments, alignment, selection."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import InvalidInputError, ReadError, did_you_mean
from fitspike.recording.attachments import Attachment, read_conditions, read_events, read_signals
from fitspike.recording.recording import Recording

ATTACH_KINDS = ("signals", "events", "conditions")
_FILE_OPTIONS = {"signals": {"rate": "sampling_rate_hz", "start": "start_s", "name": "name"}, "events": {"name": "name"}, "conditions": {}}


def load_data(
    path: Any,
    *,
    format: str | None = None,
    reader: Mapping[str, Any] | None = None,
    attach: Mapping[str, Any] | None = None,
    align: str | None = None,
    window_s: tuple[float, float] | None = None,
    neurons: Sequence[str] = (),
    where: Sequence[str] = (),
    trials: str | Sequence[int] | None = None,
    conditions: Sequence[str] = (),
    start_s: float | None = None,
    stop_s: float | None = None,
    signals: Sequence[str] | None = None,
) -> Recording:
    """Return the recording that the keys of `[data]` describe.

    In this order: read, attach, cut to neurons and time range, align, choose trials and conditions. Without `align`, trials are those of
    the file; with it, those that the alignment made. Labels attached to an aligned recording are one per event.

    Parameters
    ----------
    path : file, folder, several files of the same neurons, or an object that `fitspike.load` takes
    attach : "signals", "events" (files) and "conditions" (one file); "FILE,name=x" and "FILE,rate=1000,start=0.5" say what a file does not
    trials : rows, or a text such as "0:20", "0,3,5" or "10:"

    Raises
    ------
    FitspikeError
        If a file cannot be read, a name does not exist, or nothing is left.
    """
    from fitspike.datasets.loading import load

    attach = dict(attach or {})
    if unknown := [kind for kind in attach if kind not in ATTACH_KINDS]:
        raise InvalidInputError(
            f"nothing to attach as {unknown[0]!r}{did_you_mean(unknown[0], ATTACH_KINDS)} Known: {', '.join(ATTACH_KINDS)}."
        )
    if (align is None) != (window_s is None):
        raise InvalidInputError(
            "align needs both the name of the events and the window around them, such as align='cue' and window (-0.2, 0.8)."
        )
    is_only_one = isinstance(path, list | tuple) and len(path) == 1 and isinstance(path[0], str | Path)
    recording = load(path[0] if is_only_one else path, format=format, **(reader or {}))
    for spec in _as_list(attach.get("signals")):
        recording = _with(recording, _from_file(read_signals, spec, "signals"))
    for spec in _as_list(attach.get("events")):
        recording = _with(recording, _from_file(read_events, spec, "events"))
    labels = _as_list(attach.get("conditions"))
    if len(labels) > 1:
        raise InvalidInputError(f"{len(labels)} files to attach conditions from; expected one, with a label per trial or event.")
    if labels and align is None:
        recording = _with(recording, read_conditions(labels[0], recording.n_trials))
    early: dict[str, Any] = {
        "neurons": list(neurons) or None,
        "where": list(where) or None,
        "start_s": start_s,
        "stop_s": stop_s,
        "signals": signals,
    }
    late: dict[str, Any] = {"trials": trials, "conditions": list(conditions) or None}
    if align is None:
        return recording.select(**early, **late | {"trials": trial_rows(trials, recording.n_trials)})
    recording = recording.select(**early)
    n_events = len(recording.events.get(align, ()))
    attached = read_conditions(labels[0], n_events) if labels and n_events else Attachment()
    recording = recording.align(align, window_s, conditions=attached.conditions)
    event = recording.trials.column("event")
    recording = recording.attach(trial_columns={name: values[event] for name, values in attached.trial_columns.items()})
    return recording.select(**late | {"trials": trial_rows(trials, recording.n_trials)})


def _with(recording: Recording, attachment: Attachment) -> Recording:
    recording = recording.attach(
        signals=attachment.signals,
        events=attachment.events,
        conditions=attachment.conditions,
        trial_columns=attachment.trial_columns,
    )
    return replace(recording, source=replace(recording.source, notes=(*recording.source.notes, *attachment.notes)))


def _from_file(read: Callable[..., Attachment], spec: str, kind: str) -> Attachment:
    """Return what a file attaches; `spec` is its path, and options as in "lever.npy,rate=1000,name=lever"."""
    path, given = _file_and_options(spec)
    options: dict[str, Any] = {}
    for option in given:
        key, _, value = option.partition("=")
        known = _FILE_OPTIONS[kind]
        if key.strip() not in known:
            raise InvalidInputError(f"{spec!r}: no option {key!r}{did_you_mean(key, known)} Known for {kind}: {', '.join(known)}.")
        try:
            options[known[key.strip()]] = value if key.strip() == "name" else float(value)
        except ValueError as error:
            raise InvalidInputError(f"{spec!r}: {key}={value} is no number.") from error
    if not Path(path).exists():
        raise ReadError(f"no such file to attach {kind} from: {path}.")
    return read(path, **options)


def _file_and_options(spec: str) -> tuple[str, list[str]]:
    """Return the path in "lever.npy,rate=1000,name=lever", and the options behind it."""
    path, options = str(spec), []
    while not Path(path).exists() and "," in path and "=" in path.rpartition(",")[2]:
        path, _, option = path.rpartition(",")
        options.insert(0, option)
    return path, options


def absolute_paths(path: Iterable[str], attach: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the files of `[data]` so that they are found from any folder; names of nothing stay as they are."""
    return tuple(map(_absolute, path)), {kind: [_absolute(spec) for spec in _as_list(files)] for kind, files in attach.items()}


def _absolute(spec: str) -> str:
    path, options = _file_and_options(spec)
    file = Path(path).expanduser()
    if file.exists():
        return ",".join([str(file.resolve()), *options])
    return str(Path.cwd() / path) if not options and glob.glob(path) else spec


def trial_rows(trials: str | Sequence[int] | None, n_trials: int) -> np.ndarray | None:
    """Return the rows of "0:20", "0,3,5", "10:" or a mixture such as "0:5,9"; None for all."""
    if trials is None or not isinstance(trials, str):
        return None if trials is None else np.asarray(trials)
    rows: list[int] = []
    try:
        for part in trials.split(","):
            first, colon, last = part.partition(":")
            rows += range(int(first or 0), int(last) if last.strip() else n_trials) if colon else [int(first)]
    except ValueError as error:
        raise InvalidInputError(f"trials {trials!r} cannot be read. Write rows from 0, such as 0:20, 0,3,5 or 10:.") from error
    return np.asarray(rows, dtype=np.int64)


def _as_list(value: str | Iterable[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
