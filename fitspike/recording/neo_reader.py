"""Every format that Neo reads spikes from; neo blocks to recordings and back. The only file that imports neo.

Each of Neo's readers for an extension is tried in turn and every failure is reported: `neo.get_io` swallows exceptions, picks readers that
return no spike train without an error, and names neither.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fitspike import __version__
from fitspike.errors import FitspikeError, NoSpikeTrainsError, ReadError, did_you_mean
from fitspike.recording.neo_content import read_blocks, read_raw
from fitspike.recording.neo_restore import COLUMN, MARK, TRIAL_COLUMN, TRIAL_TIMES, is_ours, restore
from fitspike.recording.reading import contradiction, is_text, source_of
from fitspike.recording.recording import Recording
from fitspike.recording.tables import RecordingSource
from fitspike.recording.truncation import truncation_note
from fitspike.units import ns_to_s

NOT_USED: Mapping[str, str] = {
    "AsciiSignalIO": "text is read by the table reader",
    "AsciiSpikeTrainIO": "text is read by the table reader: it guesses the unit, and does not read what it writes",
    "NWBIO": "NWB is read by the nwb reader: this one drops trials and unit columns",
    "PhyIO": "phy folders are read by the phy reader: this one fails on column vectors and without params.py",
    "NestIO": "NEST files are read by the nest reader: this one needs the list of neurons",
    "KwikIO": "it needs the unmaintained klusta package and an old numpy",
    "ExampleIO": "it invents data",
    "RawBinarySignalIO": "raw binary holds no spike trains",
    "AsciiImageIO": "images hold no spike trains",
    "BlkIO": "images hold no spike trains",
    "TiffIO": "images hold no spike trains",
}
"""Classes of neo.io that are never tried, and why."""

_MAT_MARK = "block"


class NeoReader:
    """Reads files and folders through Neo: raw readers column by column, the others through their blocks."""

    name = "neo"

    @property
    def extensions(self) -> tuple[str, ...]:
        """Return the extensions of all of Neo's readers that are used."""
        return tuple(sorted({f".{extension.lower()}" for io in _ios() for extension in io.extensions if extension}))

    def can_read(self, path: Path) -> bool | str:
        """Return True if Neo has a reader for the extension (or for files in the folder) and the content does not contradict it."""
        if path.is_file():
            if contradiction(path):
                return contradiction(path)
            if is_text(path) and path.suffix.lower() in (".txt", ".csv", ".tsv", ".asc", ".gdf"):
                return "text is read by the table reader; Neo's text reader guesses the unit"
            if path.suffix.lower() == ".mat" and not _is_neo_mat(path):
                return "the .mat file was not written by Neo (it holds no variable 'block')"
        return bool(_candidates(path)) or f"Neo has no reader for {path.suffix or 'this folder'!r}"

    def read(
        self,
        path: Path,
        *,
        io: str | None = None,
        io_options: Mapping[str, Any] | None = None,
        signals: str = "auto",
        allow_pickle: bool = False,
    ) -> Recording:
        """Return the recording: a trial per segment, every train a neuron, units that nobody sorted included (column `is_sorted`).

        Parameters
        ----------
        io : name of a class of neo.io, such as "PlexonIO", to use it whatever the extension
        io_options : further arguments of that class
        signals : "auto" reads those that cover all trials and are not huge, "all", or "none"; the notes name those left out
        allow_pickle : read a pickle. Loading one executes whatever code its author put in.

        Raises
        ------
        ReadError
            If no class reads it, or none finds a spike train; the text lists every class and its reason.
        """
        if path.suffix.lower() in (".pkl", ".pickle", ".p") and not allow_pickle:
            raise ReadError(
                f"{path} is a Python pickle, and loading a pickle executes any code in it. If you trust where it comes from, say "
                "allow_pickle=True; better, save it in another format."
            )
        candidates = [_by_name(io)] if io is not None else _candidates(path)
        attempts: list[str] = []
        without_trains: NoSpikeTrainsError | None = None
        for candidate in candidates:
            try:
                return _read_with(candidate, path, dict(io_options or {}), signals)
            except NoSpikeTrainsError as error:
                without_trains = error
            except FitspikeError as error:
                attempts.append(f"{candidate.__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - Neo's readers raise whatever a damaged file makes them raise; each is reported
                attempts.append(f"{candidate.__name__}: {type(error).__name__}: {error}")
        if without_trains is not None:
            raise without_trains
        hint = contradiction(path)
        listed = "; ".join(attempts) or f"Neo has no reader for {path.suffix!r}"
        raise ReadError(f"{path} is not readable through Neo. {hint + ' ' if hint else ''}{listed}".rstrip(".") + ".")


def _ios() -> list[type]:
    import neo

    return [io for io in neo.io.iolist if io.__name__ not in NOT_USED]


def _by_name(name: str) -> type:
    import neo

    known = {io.__name__: io for io in neo.io.iolist}
    if name not in known:
        raise ReadError(f"neo.io has no class {name!r}{did_you_mean(name, known)}")
    return known[name]


def _candidates(path: Path) -> list[type]:
    """Return the classes for an extension, or for the files in a folder: those that know spike trains first."""
    import neo

    if path.is_dir():
        inside = {file.suffix.lower() for file in path.glob("**/*") if file.is_file()} - {"", ".txt", ".npy"}
        found = [io for io in _ios() if io.mode == "dir" and inside & {f".{e.lower()}" for e in io.extensions}]
    else:
        extension = path.suffix.lower()
        found = [io for io in _ios() if io.mode != "dir" and extension in {f".{e.lower()}" for e in io.extensions if e}]
        if extension != ".bin":
            found = [io for io in found if io.__name__ != "AxonaIO"]
    return sorted(found, key=lambda io: neo.SpikeTrain not in io.supported_objects)


def _is_neo_mat(path: Path) -> bool:
    from scipy import io

    try:
        return any(name == _MAT_MARK for name, _, _ in io.whosmat(path))
    except (ValueError, TypeError, NotImplementedError, OSError):
        return False


def _read_with(candidate: type, path: Path, options: dict[str, Any], signals: str) -> Recording:
    """Return the recording read by one class of neo.io; what it warns of goes to the notes."""
    import neo

    notes: list[str] = []

    def make_source() -> RecordingSource:
        files = [path] if path.is_file() else sorted(file for file in path.glob("**/*") if file.is_file())
        notes.extend(f"neo: {text}" for text in dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning))
        return source_of(path, f"neo:{candidate.__name__}", neo.__version__, notes, files=files)

    raw_class = next((base for base in candidate.__mro__ if base in neo.rawio.rawiolist), None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if raw_class is not None:
            if "progress_bar" in inspect.signature(raw_class).parameters:
                options.setdefault("progress_bar", False)
            raw = raw_class(**{"dirname" if candidate.mode == "dir" else "filename": str(path)}, **options)
            raw.parse_header()
            recording = read_raw(raw, signals=signals, notes=notes, make_source=make_source, what=str(path))
        else:
            if "mode" in inspect.signature(candidate).parameters:
                options.setdefault("mode", "ro")
            reader = candidate(str(path), **options)
            blocks = reader.read_all_blocks() if hasattr(reader, "read_all_blocks") else [reader.read_block()]
            recording = read_blocks(blocks, signals=signals, notes=notes, make_source=make_source, what=str(path))
    if cut_off := truncation_note(path, recording.n_spikes):
        recording = replace(recording, source=replace(recording.source, notes=(*recording.source.notes, f"neo: {cut_off}")))
    return recording


def from_neo(block: Any, *, signals: str = "all") -> Recording:
    """Return the recording of a neo Block, a Segment, or a list of either.

    Raises
    ------
    ReadError
        If there is no spike train in it.
    """
    import neo

    given = list(block) if isinstance(block, Sequence) else [block]
    blocks = []
    for item in given:
        if isinstance(item, neo.Segment):
            holder = neo.Block()
            holder.segments.append(item)
            item = holder
        blocks.append(item)
    if len(blocks) == 1 and is_ours(blocks[0]):
        return restore(blocks[0])
    notes: list[str] = []
    return read_blocks(
        blocks,
        signals=signals,
        notes=notes,
        make_source=lambda: RecordingSource(str(blocks[0].file_origin or ""), "", "neo.Block", neo.__version__, tuple(notes)),
        what="the neo Block",
    )


def to_neo(recording: Recording) -> Any:
    """Return the recording as a neo.Block: a segment per trial with a spike train per neuron, times in s.

    A last segment named "shared" holds signals and events, which run over all trials; spikes outside every trial are in one named "outside
    trials". `from_neo` gives the same recording back. Counts of binned data are the array annotation `count` of each bin's start.
    """
    import neo

    table, trials = recording.neurons, recording.trials
    source = {f"source_{name}": getattr(recording.source, name) for name in ("path", "sha256", "reader", "reader_version")}
    block = neo.Block(name="recording", **{MARK: __version__}, **source)
    if recording.bin_width_ns is not None:
        block.annotate(bin_width_ns=int(recording.bin_width_ns))
    neuron_notes = [
        {"id": str(table.ids[i]), "population": str(table.populations[i])}
        | {f"{COLUMN}{name}": _plain(v[i]) for name, v in table.columns.items()}
        for i in range(len(table))
    ]
    by_neuron = np.argsort(recording.spike_neuron, kind="stable")
    for k in range(len(trials)):
        about = {name: int(getattr(trials, name)[k]) for name in TRIAL_TIMES} | {"condition": str(trials.conditions[k])}
        about |= {f"{TRIAL_COLUMN}{name}": _plain(values[k]) for name, values in trials.columns.items()}
        segment = neo.Segment(name=f"trial {k}", role="trial", **about)
        times = recording.spike_times_ns[by_neuron]
        chosen = by_neuron[(times >= trials.start_ns[k]) & (times < trials.stop_ns[k])]
        _add_trains(segment, recording, chosen, neuron_notes, int(trials.start_ns[k]), int(trials.stop_ns[k]))
        block.segments.append(segment)
    outside = by_neuron[~recording.is_in_trial[by_neuron]]
    if outside.size or not len(trials):
        segment = neo.Segment(name="outside trials", role="outside")
        low, high = recording.extent_ns
        _add_trains(segment, recording, outside, neuron_notes, low, high + 1)
        block.segments.append(segment)
    if recording.signals or recording.events:
        block.segments.append(_shared_segment(recording))
    return block


def _add_trains(
    segment: Any, recording: Recording, chosen: np.ndarray, neuron_notes: Sequence[Mapping[str, Any]], start_ns: int, stop_ns: int
) -> None:
    """Add a train per neuron; `chosen` are spikes sorted by neuron, then time."""
    import neo

    edges = np.searchsorted(recording.spike_neuron[chosen], np.arange(recording.n_neurons + 1))
    start, stop = ns_to_s(start_ns), ns_to_s(stop_ns)
    for row, about in enumerate(neuron_notes):
        mine = chosen[edges[row] : edges[row + 1]]
        extra = {} if recording.spike_count is None else {"array_annotations": {"count": recording.spike_count[mine].astype(np.int64)}}
        train = neo.SpikeTrain(
            ns_to_s(recording.spike_times_ns[mine]),
            units="s",
            t_start=start,
            t_stop=stop,
            name=str(recording.neurons.labels[row]),
            **extra,
            **about,
        )
        segment.spiketrains.append(train)


def _shared_segment(recording: Recording) -> Any:
    """Return the segment of signals and events. A unit that neo does not know stays in the annotation `unit` alone."""
    import neo
    import quantities

    segment = neo.Segment(name="shared", role="shared")
    for name, signal in recording.signals.items():
        about = {"sampling_rate_hz": float(signal.sampling_rate_hz), "start_ns": int(signal.start_ns), "unit": signal.unit}
        about |= {"channels": list(signal.channels), "stored_dtype": signal.values.dtype.str}
        values = np.asarray(signal.values)
        settings = {
            "sampling_rate": quantities.Quantity(signal.sampling_rate_hz, "Hz"),
            "t_start": quantities.Quantity(ns_to_s(signal.start_ns), "s"),
        }
        segment.analogsignals.append(neo.AnalogSignal(values, units=_known_unit(signal.unit), name=name, **settings, **about))
    for name, times in recording.events.items():
        segment.events.append(neo.Event(ns_to_s(times), units="s", name=name))
    return segment


def _known_unit(unit: str) -> str:
    import quantities

    try:
        quantities.Quantity(1.0, unit or "dimensionless")
    except (LookupError, SyntaxError, TypeError, ValueError):
        return "dimensionless"
    return unit or "dimensionless"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
