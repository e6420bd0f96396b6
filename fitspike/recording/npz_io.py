"""The native format: a memory-mappable folder X.fitspike of .npy files, or the same in one file X.fitspike.npz. No pickles.

`recording.json` says which array is what; docs/formats.md describes every entry. A newer format version is refused with a message.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from fitspike import __version__
from fitspike.errors import FitspikeError, ReadError, RecordingError
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable, RecordingSource, Signal, TrialTable

FORMAT = "fitspike-recording"
FORMAT_VERSION = 1
FOLDER_SUFFIX, FILE_SUFFIX = ".fitspike", ".fitspike.npz"
DESCRIPTION = "recording.json"

_HASH_BLOCK = 1 << 20
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class NativeReader:
    """Reads what `Recording.save` wrote."""

    name = "native"
    extensions = (FOLDER_SUFFIX, FILE_SUFFIX)

    def can_read(self, path: Path) -> bool | str:
        """Return True, or the reason why not."""
        path = Path(path)
        if path.is_dir():
            return (path / DESCRIPTION).is_file() or f"the folder holds no {DESCRIPTION}"
        if not zipfile.is_zipfile(path):
            return "neither a folder nor a .npz file"
        with zipfile.ZipFile(path) as archive:
            return "recording.npy" in archive.namelist() or "the .npz file holds no array 'recording'"

    def read(self, path: Path, *, mmap: bool = True) -> Recording:
        """Return the recording; arrays of a folder stay on disk with `mmap`. A recording without a source has this file as its source."""
        recording = load_recording(path, mmap=mmap)
        if recording.source.path:
            return recording
        return replace(recording, source=replace(recording.source, path=str(path)))


def save_recording(recording: Recording, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a recording and return its path: a folder, or one file where `path` ends with .npz; the suffix .fitspike is added if missing.

    Everything is written under a temporary name beside it and then renamed, so that a recording is either whole or absent.

    Raises
    ------
    RecordingError
        If the path exists and `overwrite` is False.
    """
    path = _with_suffix(Path(path))
    if path.exists() and not overwrite:
        raise RecordingError(f"{path} exists. Choose another name; in Python, overwrite=True replaces it.")
    description, arrays = _described(recording)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.name.endswith(FILE_SUFFIX):
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, recording=np.array(json.dumps(description)), **arrays)
        else:
            temporary.mkdir()
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
        _replace(temporary, path)
    finally:
        _remove(temporary)
    return path


def load_recording(path: str | Path, *, mmap: bool = True) -> Recording:
    """Return a saved recording; arrays of a folder are memory-mapped, read-only, unless `mmap` is False.

    Raises
    ------
    ReadError
        If there is none, it is damaged, or it was written in a newer format version.
    """
    path = Path(path)
    if not path.exists():
        raise ReadError(f"no such recording: {path}.")
    if (reason := NativeReader().can_read(path)) is not True:
        raise ReadError(f"{path} is no native recording: {reason}.")
    try:
        with contextlib.ExitStack() as stack:
            arrays = _Folder(path, mmap) if path.is_dir() else stack.enter_context(np.load(path, allow_pickle=False))
            description = json.loads((path / DESCRIPTION).read_text("utf-8") if path.is_dir() else str(arrays["recording"]))
            _check_version(description, path)
            return _assembled(description, arrays)
    except ReadError:
        raise
    except _DAMAGE as error:
        cause = f"no entry {error}" if isinstance(error, KeyError) and not isinstance(error, FitspikeError) else str(error)
        raise ReadError(f"{path} is damaged ({cause or type(error).__name__}). Copy or make it again.") from error


def fingerprint(recording: Recording) -> str:
    """Return the SHA-256 of the contents, whatever their storage: type widths and the recording's source do not matter."""
    digest = hashlib.sha256()
    description, arrays = _described(recording)
    renamed = {array: name for name, array in description["arrays"].items()}
    for stored, array in sorted(arrays.items(), key=lambda item: renamed[item[0]]):
        digest.update(f"{renamed[stored]} {array.shape}\0".encode())
        if array.dtype.kind in "US":
            digest.update("\0".join(array.ravel().astype(str).tolist()).encode())
            continue
        wide = {"i": np.int64, "u": np.uint64, "b": np.uint8, "f": np.float64}.get(array.dtype.kind, array.dtype)
        step = max(1, _HASH_BLOCK // max(1, int(np.prod(array.shape[1:]))))
        for at in range(0, len(array), step):
            digest.update(np.ascontiguousarray(array[at : at + step]).astype(wide).tobytes())
    rest = {key: description[key] for key in ("bin_width_ns", "signals")}
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def _described(recording: Recording) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description, and the arrays by the name they are stored under."""
    named: dict[str, np.ndarray] = {"spike_times_ns": recording.spike_times_ns, "spike_neuron": recording.spike_neuron}
    if recording.spike_count is not None:
        named["spike_count"] = recording.spike_count
    neurons, trials = recording.neurons, recording.trials
    named |= {f"neurons/{name}": getattr(neurons, name) for name in ("ids", "labels", "populations")}
    named |= {f"neurons/columns/{name}": values for name, values in neurons.columns.items()}
    named |= {f"trials/{name}": getattr(trials, name) for name in ("start_ns", "stop_ns", "conditions", "warmup_ns", "offset_ns")}
    named |= {f"trials/columns/{name}": values for name, values in trials.columns.items()}
    named |= {f"signals/{name}": signal.values for name, signal in recording.signals.items()}
    named |= {f"events/{name}": times for name, times in recording.events.items()}
    # a column may have any name, a file may not: arrays beyond the first three are numbered
    stored = {name: name if "/" not in name else f"{name.partition('/')[0]}_{number:03d}" for number, name in enumerate(named)}
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fitspike_version": __version__,
        "bin_width_ns": recording.bin_width_ns,
        "arrays": stored,
        "signals": {
            name: {
                "sampling_rate_hz": signal.sampling_rate_hz,
                "start_ns": int(signal.start_ns),
                "unit": signal.unit,
                "channels": list(signal.channels),
            }
            for name, signal in recording.signals.items()
        },
        "source": asdict(recording.source),
    }
    return description, {stored[name]: values for name, values in named.items()}


def _assembled(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Recording:
    stored = description["arrays"]

    def get(name: str) -> np.ndarray:
        return arrays[stored[name]]

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): arrays[key] for name, key in stored.items() if name.startswith(prefix)}

    source = dict(description["source"])
    return Recording(
        get("spike_times_ns"),
        get("spike_neuron"),
        NeuronTable.make(
            get("neurons/ids"), labels=get("neurons/labels"), populations=get("neurons/populations"), columns=under("neurons/columns/")
        ),
        TrialTable.make(
            get("trials/start_ns"),
            get("trials/stop_ns"),
            conditions=get("trials/conditions"),
            columns=under("trials/columns/"),
            warmup_ns=get("trials/warmup_ns"),
            offset_ns=get("trials/offset_ns"),
        ),
        {
            name: Signal(get(f"signals/{name}"), about["sampling_rate_hz"], about["start_ns"], about["unit"], tuple(about["channels"]))
            for name, about in description["signals"].items()
        },
        RecordingSource(**{**source, "notes": tuple(source["notes"])}),
        get("spike_count") if "spike_count" in stored else None,
        description["bin_width_ns"],
        under("events/"),
    )


class _Folder(Mapping):
    """The .npy files of a folder by name."""

    def __init__(self, path: Path, mmap: bool) -> None:
        self._path, self._mode = path, "r" if mmap else None

    def __getitem__(self, name: str) -> np.ndarray:
        file = self._path / f"{name}.npy"
        if not file.is_file():
            raise ReadError(f"{self._path} is damaged: {file.name} is missing. Copy or make it again.")
        # tables are small, and an empty file cannot be mapped
        is_large = file.stat().st_size > 1 << 16
        return np.load(file, mmap_mode=self._mode if is_large else None, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return (file.stem for file in self._path.glob("*.npy"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _check_version(description: Mapping[str, Any], path: Path) -> None:
    if description.get("format") != FORMAT:
        raise ReadError(f"{path} is no native recording: its format is {description.get('format')!r}, not {FORMAT!r}.")
    version = description.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ReadError(f"{path} is damaged: format version {version!r}. Copy or make it again.")
    if version > FORMAT_VERSION:
        raise ReadError(
            f"{path} has format version {version}, written by fitspike {description.get('fitspike_version')}; this is fitspike "
            f"{__version__}, which reads versions up to {FORMAT_VERSION}. Update fitspike."
        )


def _with_suffix(path: Path) -> Path:
    if path.name.endswith((FOLDER_SUFFIX, FILE_SUFFIX)):
        return path
    if path.suffix == ".npz":
        return path.with_suffix(FILE_SUFFIX)
    return path.with_name(path.name + FOLDER_SUFFIX)


def _replace(temporary: Path, path: Path) -> None:
    """Rename; a folder that is overwritten steps aside first, since a folder cannot be renamed onto another."""
    if not path.is_dir():
        os.replace(temporary, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, old)
    os.replace(temporary, path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
