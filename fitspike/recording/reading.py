"""What the readers of file formats share: the protocol, content signatures, hashes, notes, and options checked by name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fitspike.errors import MissingDependencyError, ReadError, did_you_mean
from fitspike.recording.resample import gap_in
from fitspike.recording.tables import RecordingSource, Signal, TrialTable
from fitspike.units import NS_PER_MS

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

MAX_HASHED_BYTES = 2 << 30
"""Files above this size are not hashed: reading a 100 GB raw file to name it costs more than the fit."""

MAX_SIGNAL_VALUES = 10_000_000
"""With signals="auto" a signal of more values than this (broadband voltage, video) is left out, and the notes say so."""


@runtime_checkable
class Reader(Protocol):
    """One file format. Built-in and third-party readers are tried in their order of registration, built-ins first."""

    name: str
    extensions: tuple[str, ...]

    def can_read(self, path: Path) -> bool | str:
        """Return True, or the reason why not, judged by content first and extension second."""
        ...

    def read(self, path: Path, **options: Any) -> Recording:
        """Return the recording; ReadError when it cannot, also when there is no spike train in it."""
        ...


@dataclass(frozen=True)
class Signature:
    """The first bytes of a format. `extensions` are those its files carry."""

    start: bytes
    label: str
    extensions: tuple[str, ...]


SIGNATURES = (
    Signature(b"\x89HDF\r\n\x1a\n", "an HDF5 file", (".h5", ".hdf5", ".nwb", ".nix", ".kwik", ".brw", ".mat")),
    Signature(b"MATLAB 5.0", "a MATLAB file", (".mat",)),
    Signature(b"MATLAB 7.3", "a MATLAB 7.3 file", (".mat",)),
    Signature(b"PK\x03\x04", "a zip archive (such as .npz)", (".npz", ".zip")),
    Signature(b"\x93NUMPY", "a numpy array", (".npy",)),
    Signature(b"NEX1", "a NeuroExplorer file", (".nex",)),
    Signature(b"NEX2", "a NeuroExplorer 5 file", (".nex5",)),
    Signature(b"PLEX", "a Plexon file", (".plx",)),
    Signature(b"NEURALEV", "a Blackrock event file", (".nev",)),
    Signature(b"BREVENTS", "a Blackrock event file", (".nev",)),
    Signature(b"NEURALSG", "a Blackrock signal file", (".ns1", ".ns2", ".ns3", ".ns4", ".ns5", ".ns6")),
    Signature(b"NEURALCD", "a Blackrock signal file", (".ns1", ".ns2", ".ns3", ".ns4", ".ns5", ".ns6")),
    Signature(b"ABF ", "an Axon binary file", (".abf",)),
    Signature(b"ABF2", "an Axon binary file", (".abf",)),
    Signature(b"\x1f\x8b", "a gzip-compressed file (such as .rda)", (".gz", ".rda", ".rdata", ".rds")),
    Signature(b"\x80\x04\x95", "a Python pickle", (".pkl", ".pickle", ".p")),
    Signature(b"\x80\x05\x95", "a Python pickle", (".pkl", ".pickle", ".p")),
    Signature(b"%PDF", "a PDF file", (".pdf",)),
)


UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def signature_of(path: Path) -> Signature | None:
    """Return the format that a file's first bytes name, or None (text, or a binary format without a signature)."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((signature for signature in SIGNATURES if head.startswith(signature.start)), None)


def is_text(path: Path) -> bool:
    """Return whether the first 64 kB hold no NUL byte and begin with no known signature; UTF-16 text by its byte-order mark."""
    if signature_of(path) is not None:
        return False
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return head.startswith(UTF16_MARKS) or b"\0" not in head


def check_file(path: Path) -> None:
    """Raise ReadError unless `path` exists, may be read and, if a file, holds at least one byte."""
    try:
        if not path.exists():
            raise ReadError(f"no such file or folder: {path}.")
        _ = next(path.iterdir(), None) if path.is_dir() else path.open("rb").close()
    except PermissionError as error:
        raise ReadError(f"no permission to read {path}. Change its permissions (and those of its folder), or copy it.") from error
    if path.is_file() and path.stat().st_size == 0:
        raise ReadError(f"{path} is an empty file (0 bytes). Was the copy interrupted?")


def contradiction(path: Path) -> str:
    """Return a sentence if a file's content is of another format than its name says, else an empty text."""
    extension = path.suffix.lower()
    named = {e for signature in SIGNATURES for e in signature.extensions}
    if not path.is_file() or extension not in named:
        return ""
    found = signature_of(path)
    if found is not None and extension not in found.extensions:
        return (
            f"The content is {found.label}, not what the name {path.name!r} says. Is it named wrongly? Rename it to {found.extensions[0]}."
        )
    if found is None and is_text(path) and extension != ".gz":
        return f"The content is text, not what the name {path.name!r} says. Is it named wrongly? Rename it to .txt or .csv."
    return ""


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of several; an empty text where a file is too large to hash."""
    digests = []
    for path in paths:
        if path.stat().st_size > MAX_HASHED_BYTES:
            return ""
        with path.open("rb") as file:
            digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    if len(digests) == 1:
        return digests[0][1]
    return hashlib.sha256("\n".join(f"{digest}  {name}" for name, digest in sorted(digests)).encode()).hexdigest()


def source_of(path: Path, reader: str, version: str, notes: Iterable[str], *, files: Iterable[Path] | None = None) -> RecordingSource:
    """Return the provenance of a file, or of a folder of which `files` were read."""
    used = [path] if files is None else list(files)
    return RecordingSource(str(path), sha256_of(used), reader, version, tuple(dict.fromkeys(notes)))


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Return an optional module.

    Raises
    ------
    MissingDependencyError
        If it is not installed; the text names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{purpose} needs {module}, which is not installed. Run: pip install 'fitspike[{extra}]'.") from error


def check_options(read: Callable[..., Any], options: Mapping[str, Any], reader: str) -> None:
    """Raise ReadError if `options` has names that a reader's `read` does not take; the text lists those it does."""
    parameters = list(inspect.signature(read).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    unknown = [name for name in options if name not in known]
    if unknown:
        hints = " ".join(f"reader {reader!r} has no option {name!r}{did_you_mean(name, known)}" for name in unknown)
        raise ReadError(f"{hints} Options: {', '.join(known) or 'none'}.")


def choose_signals(
    found: Mapping[str, Callable[[], Signal]], sizes: Mapping[str, int], trials: TrialTable, which: str, reader: str, notes: list[str]
) -> dict[str, Signal]:
    """Return the signals to keep, and note the others.

    Parameters
    ----------
    found : name -> function that reads the signal
    sizes : name -> number of values
    which : "auto", "all" or "none"
        "auto" keeps signals of at most MAX_SIGNAL_VALUES values that are finite and cover every trial, so that they can be binned.
    """
    if which not in ("auto", "all", "none"):
        raise ReadError(f"signals={which!r}; expected 'auto', 'all' or 'none'.")
    kept: dict[str, Signal] = {}
    for name, read in found.items():
        reason = "signals='none'" if which == "none" else ""
        if which == "auto" and sizes[name] > MAX_SIGNAL_VALUES:
            reason = f"it has {sizes[name]} values"
        if not reason:
            signal = read()
            if which == "auto":
                reason = _why_not_binnable(signal, trials)
            if not reason:
                kept[name] = signal
                continue
        advice = "" if which == "none" else "; signals='all' reads it"
        notes.append(f"{reader}: signal {name!r} was left out ({reason}{advice}).")
    return kept


def _why_not_binnable(signal: Signal, trials: TrialTable) -> str:
    """Return in words why a signal does not cover every trial with finite values, or an empty text if it does."""
    for start, stop in zip(trials.start_ns.tolist(), trials.stop_ns.tolist(), strict=True):
        if (gap := gap_in(signal, start, stop, NS_PER_MS)) is not None:
            return gap
    return ""
