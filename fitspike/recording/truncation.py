"""Files that were cut off, told by what their headers promise: NeuroExplorer, Plexon, Blackrock."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_NEX_HEADER, _NEX_VARIABLE = 544, 208
_PLX_COUNTS = 256
"""Byte at which the 130 x 5 table of time stamps per channel and unit begins."""


def truncation_note(path: Path, n_spikes: int) -> str:
    """Return a sentence if a file holds less than its header says, else an empty text."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"NEX1"):
        return _nex(path)
    if head.startswith(b"PLEX"):
        return _plx(path, n_spikes)
    if head.startswith((b"NEURALEV", b"BREVENTS")):
        return _nev(path)
    return ""


def _nex(path: Path) -> str:
    """Compare the end of the last variable with the size of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(_NEX_HEADER)
        n_variables = struct.unpack_from("<i", header, 280)[0] if len(header) == _NEX_HEADER else 0
        end, last = 0, ""
        for _ in range(n_variables):
            entry = file.read(_NEX_VARIABLE)
            if len(entry) < _NEX_VARIABLE:
                return f"{path.name} is truncated: its table of variables is cut off."
            kind, _, name, offset, count = struct.unpack_from("<ii64sii", entry)
            n_points, n_markers, marker_length = struct.unpack_from("<iii", entry, 128)
            n_bytes = {
                0: 4 * count,
                1: 4 * count,
                2: 8 * count,
                3: count * (4 + 2 * n_points),
                5: 8 * count + 2 * n_points,
                6: 4 * count + n_markers * (64 + count * marker_length),
            }.get(kind, 0)
            if offset + n_bytes > end:
                end, last = offset + n_bytes, name.split(b"\0")[0].decode("latin-1").strip()
    if end <= size:
        return ""
    return f"{path.name} is truncated: {last!r} ends at byte {end}, the file at {size}. What lies before was read."


def _plx(path: Path, n_spikes: int) -> str:
    with path.open("rb") as file:
        file.seek(_PLX_COUNTS)
        counts = np.frombuffer(file.read(130 * 5 * 4), dtype="<i4")
    stated = int(counts.sum()) if counts.size == 650 else 0
    if stated <= n_spikes:
        return ""
    return f"{path.name} is truncated: its header counts {stated} spikes, {n_spikes} were read."


def _nev(path: Path) -> str:
    """A Blackrock event file is a header and packets of one size; a rest means that the last packet is cut off."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20:
        return f"{path.name} is truncated: its header is cut off."
    n_header, n_packet = struct.unpack_from("<II", head, 12)
    rest = (path.stat().st_size - n_header) % n_packet if n_packet else 0
    return f"{path.name} is truncated: {rest} bytes of a packet of {n_packet} remain at its end." if rest else ""
