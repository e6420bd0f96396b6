"""`load`: anything that holds spike trains to a Recording. `get`: a dataset by name.

Readers are tried in the order of registration; each says whether it can read a file, by content first and extension second. Every attempt
and its reason is in the error of a file that none could read.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import FitspikeError, MissingDependencyError, NoSpikeTrainsError, ReadError
from fitspike.recording.reading import check_file, check_options, contradiction
from fitspike.recording.recording import Recording
from fitspike.recording.tables import TrialTable
from fitspike.units import NS_PER_MS, s_to_ns

if TYPE_CHECKING:
    from fitspike.plugin.registry import Entry


def load(source: Any, *, format: str | None = None, **options: Any) -> Recording:
    """Return the recording of a file, a folder, several files, or an object that holds spike trains.

    Parameters
    ----------
    source : path, glob pattern, list of paths (files of the same neurons, joined as trials), neo Block or Segment, pynapple TsGroup or Ts,
        {"times_s": ..., "neuron_ids": ...} or a tuple of these two arrays, or a Recording (returned as it is)
    format : name of the reader. Default: the first that can read the file.
    **options : of that reader; see docs/formats.md

    Raises
    ------
    ReadError
        If nothing could read it, or what was read holds no spike train; the text lists every attempt and its reason.
    MissingDependencyError
        If the format needs a package that is not installed.
    """
    if isinstance(source, Recording):
        return source
    if isinstance(source, str | Path):
        return _load_path(source, format, options)
    if isinstance(source, Sequence) and len(source) and all(isinstance(item, str | Path) for item in source):
        return _load_paths([Path(item) for item in source], format, options)
    return _checked(_from_object(source, options), type(source).__name__)


def get(name: str) -> Recording:
    """Return a dataset's recording: "NAME", or "NAME/ITEM" where it has several. See `fitspike datasets list`."""
    from fitspike.datasets.fetching import native_path

    return load(native_path(name), format="native")


def _load_path(source: str | Path, format: str | None, options: Mapping[str, Any]) -> Recording:
    path = Path(source)
    if not path.exists():
        matches = sorted(Path(found) for found in glob.glob(str(source)))
        if not matches:
            hint = " It looks like a dataset: use `fitspike datasets get` or fitspike.get." if _is_dataset(str(source)) else ""
            raise ReadError(f"no such file or folder: {source}.{hint}")
        return _load_paths(matches, format, options) if len(matches) > 1 else _load_file(matches[0], format, options)
    return _load_file(path, format, options)


def _is_dataset(text: str) -> bool:
    from fitspike.plugin.registry import get_registry

    return text.partition("/")[0] in get_registry().names("datasets")


def _load_paths(paths: Sequence[Path], format: str | None, options: Mapping[str, Any]) -> Recording:
    """Return several files as one recording: one neuron each if the layout says so, else joined as trials."""
    for path in paths:
        check_file(path)
    if options.get("layout") == "neuron-per-file":
        return _checked(_reader(format or "table").read(list(paths), **options), f"{len(paths)} files")
    if len(paths) == 1:
        return _load_file(paths[0], format, options)
    return Recording.concatenate([_load_file(path, format, options) for path in paths], labels=[path.stem for path in paths])


def _reader(name: str) -> Any:
    from fitspike.plugin.registry import get_registry

    return get_registry().create("readers", name)


def _load_file(path: Path, format: str | None, options: Mapping[str, Any]) -> Recording:
    from fitspike.plugin.registry import get_registry

    check_file(path)
    if (path / "status.json").is_file() and (path / "specs.json").is_file():
        raise ReadError(f"{path} is the folder of a run, not a recording. `fitspike score {path}` and `fitspike plot {path}` take it.")
    if format is not None:
        entry = get_registry().entry("readers", format)
        return _checked(_guarded_read(entry, entry.create(), path, options), str(path))
    refusals: list[str] = []
    failures: list[tuple[str, Exception]] = []
    unsuited: list[tuple[str, Exception]] = []
    for entry in get_registry().entries("readers"):
        try:
            reader = entry.create()
            answer = _guarded(entry, reader.can_read, path)
            if answer is not True:
                refusals.append(f"{entry.name}: {answer or 'cannot read it'}")
                continue
            try:
                check_options(reader.read, options, reader.name)
            except ReadError as error:
                unsuited.append((entry.name, error))
                continue
            return _checked(_guarded_read(entry, reader, path, options), str(path))
        except MissingDependencyError:
            raise
        except FitspikeError as error:
            failures.append((entry.name, error))
    if failures:
        refusals += [f"{name}: {error}".rstrip(".") for name, error in unsuited]
    raise _nothing_read(path, failures or unsuited, refusals)


def _guarded_read(entry: Entry, reader: Any, path: Path, options: Mapping[str, Any]) -> Recording:
    check_options(reader.read, options, reader.name)
    recording = _guarded(entry, reader.read, path, **options)
    if not isinstance(recording, Recording):
        raise ReadError(f"{entry.origin}: reader {reader.name!r} returned a {type(recording).__name__}, not a Recording.")
    return recording


def _guarded(entry: Entry, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a reader; what a damaged file makes it raise becomes a ReadError that says who registered the reader."""
    try:
        return call(*arguments, **options)
    except FitspikeError:
        raise
    except Exception as error:
        raise ReadError(f"the reader of {entry.origin} failed: {type(error).__name__}: {error}.") from error


def _checked(recording: Recording, what: str) -> Recording:
    """Return the recording; refuse one without neurons or spikes, which some readers take for success."""
    if recording.n_neurons == 0:
        raise NoSpikeTrainsError(f"no spike trains found in {what}: the reader returned a recording without neurons.")
    if recording.n_spikes == 0:
        raise NoSpikeTrainsError(f"no spike trains found in {what}: its {recording.n_neurons} neurons have no spike.")
    return recording


def _nothing_read(path: Path, failures: Sequence[tuple[str, Exception]], refusals: Sequence[str]) -> ReadError:
    """Return the error of a file that no reader could read: what the readers that tried say, then why the others did not."""
    hint = contradiction(path)
    lines = [f"cannot read {path}. {hint}".rstrip()]
    lines += [f"  {name}: {error}" for name, error in failures]
    lines.append(f"Not tried: {'; '.join(refusal for refusal in refusals if not hint or hint not in refusal)}.")
    without_trains = next((error for _, error in failures if isinstance(error, NoSpikeTrainsError)), None)
    error = (ReadError if without_trains is None else NoSpikeTrainsError)("\n".join(lines))
    if failures:
        error.__cause__ = failures[0][1]
    return error


# -- objects ------------------------------------------------------------------------------------------------------------------------------


def _from_object(source: Any, options: Mapping[str, Any]) -> Recording:
    package = type(source).__module__.partition(".")[0]
    first = source[0] if isinstance(source, list | tuple) and len(source) else None
    if package == "neo" or type(first).__module__.partition(".")[0] == "neo":
        from fitspike.recording.neo_reader import from_neo

        check_options(from_neo, options, "neo")
        return from_neo(source, **options)
    if package == "pynapple":
        return _from_pynapple(source, options)
    if isinstance(source, Mapping) and {"times_s", "neuron_ids"} <= set(source):
        extra = {name: value for name, value in source.items() if name not in ("times_s", "neuron_ids")}
        check_options(Recording.from_arrays, {**extra, **options}, "arrays")
        return Recording.from_arrays(source["times_s"], source["neuron_ids"], **{**extra, **options})
    if isinstance(source, tuple) and len(source) == 2:
        check_options(Recording.from_arrays, options, "arrays")
        return Recording.from_arrays(source[0], source[1], **options)
    keys = f" with the keys {', '.join(map(str, source))}" if isinstance(source, Mapping) else ""
    raise ReadError(
        f"cannot make a recording of a {type(source).__name__}{keys}. Give a path, a neo Block, a pynapple TsGroup, a Recording, "
        "{'times_s': times, 'neuron_ids': ids}, or the tuple (times_s, neuron_ids); for one array of times per neuron: "
        "Recording.from_trains(trains)."
    )


def _from_pynapple(source: Any, options: Mapping[str, Any]) -> Recording:
    """Return the recording of a TsGroup (or one Ts): trials are the intervals of its time support, metadata are neuron columns."""
    if not hasattr(source, "time_support"):
        raise ReadError(
            f"cannot make a recording of a pynapple {type(source).__name__}. Give a TsGroup, or attach this as signal or events."
        )
    if hasattr(source, "keys"):
        ids = list(source.keys())
        trains = {i: np.asarray(source[i].index) for i in ids}
        metadata = {name: np.asarray(source[name]) for name in getattr(source, "metadata_columns", ()) if name != "rate"}
    else:
        trains, metadata = {0: np.asarray(source.index)}, {}
    support = np.asarray(source.time_support.values, dtype=np.float64)
    start, stop = s_to_ns(support[:, 0]), s_to_ns(support[:, 1])
    at_end = np.isin(stop, s_to_ns(np.concatenate([np.zeros(0), *trains.values()])))
    notes = []
    if at_end.any():
        stop = np.where(at_end, -(-(stop + 1) // NS_PER_MS) * NS_PER_MS, stop)
        notes.append(f"pynapple: {at_end.sum()} intervals of the time support end at a spike; they were moved to the next full ms.")
    options = {"trials": TrialTable.make(start, stop), **options}
    recording = Recording.from_trains(trains, **options)
    recording = recording.attach(neuron_columns=metadata) if metadata else recording
    return replace(recording, source=replace(recording.source, reader=f"pynapple.{type(source).__name__}", notes=tuple(notes)))
