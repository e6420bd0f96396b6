"""Tables that no format describes: csv and other text, npz, npy, MATLAB and HDF5 files, read as the caller says what is what.

Nothing is guessed that could change a result: the columns and the time unit must be said, unless a column's name states its unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError, did_you_mean
from fitspike.recording import array_tree, text_tables
from fitspike.recording.reading import contradiction, is_text, signature_of, source_of
from fitspike.recording.recording import Recording
from fitspike.recording.table_layouts import Layout, build
from fitspike.recording.table_options import LAYOUTS, TableOptions

_ON_COMMAND_LINE = " On the command line: --reader-option times=... --reader-option neurons=... --time-unit s."


class TableReader:
    """Reads text and array files. `read` takes the fields of TableOptions as keywords."""

    name = "table"
    extensions = (".csv", ".tsv", ".txt", ".npz", ".npy", ".mat", ".h5", ".hdf5")
    version = "1"

    def can_read(self, path: Path) -> bool | str:
        """Return True for text, for array files by content, and for folders of text files."""
        if path.is_dir():
            return any(is_text(p) for p in _files_of(path)) or "the folder holds no text files"
        if reason := contradiction(path):
            return reason
        found = signature_of(path)
        label = found.label if found else ""
        if label.startswith("a gzip"):
            return "gzip-compressed (R data?): save it as .csv or .npz first"
        if label == "an HDF5 file" and path.suffix.lower() not in (".h5", ".hdf5", ".mat"):
            return "an HDF5 file of another format; say format='table' to read it as a table"
        if label.startswith(("an HDF5", "a MATLAB", "a zip", "a numpy")) or path.suffix.lower() == ".mat" or is_text(path):
            return True
        return f"the content is {label or 'neither text nor an array file'}"

    def read(self, path: Path | Sequence[Path], **options: Any) -> Recording:
        """Return the recording that the options describe.

        Raises
        ------
        ReadError
            If the file cannot be opened, holds no spikes, or it is not clear what is what; the message lists what is in the file and
            shows an example of a call.
        """
        known = [f.name for f in fields(TableOptions)]
        if unknown := [name for name in options if name not in known]:
            hints = " ".join(f"reader 'table' has no option {name!r}{did_you_mean(name, known)}" for name in unknown)
            raise ReadError(f"{hints} Options: {', '.join(known)}.")
        settings = TableOptions(**options)
        if settings.layout not in (None, *LAYOUTS):
            raise ReadError(f"no layout {settings.layout!r}{did_you_mean(settings.layout, LAYOUTS)} Layouts: {', '.join(LAYOUTS)}.")
        notes: list[str] = []
        if settings.layout == "neuron-per-file":
            files = list(path) if not isinstance(path, Path) else _files_of(path) if path.is_dir() else [path]
            layout, named = _neuron_per_file(files, settings, notes), files[0].parent
        elif not isinstance(path, Path) or path.is_dir():
            where = path if isinstance(path, Path) else path[0].parent
            raise ReadError(
                f"{where}: several files. If each holds the spike times of one neuron, say layout='neuron-per-file' and the unit."
            )
        else:
            files, named = [path], path
            is_array = path.suffix.lower() == ".mat" or signature_of(path) is not None
            layout = _from_arrays(path, settings) if is_array else _from_text(path, settings, notes)
        return build(layout, settings, notes, lambda: source_of(named, self.name, self.version, notes, files=files))


def _from_arrays(path: Path, settings: TableOptions) -> Layout:
    tree = array_tree.open_tree(path)
    if settings.times is None and settings.counts is None:
        raise ReadError(
            f"{path} holds {array_tree.describe(tree)} Say which entries are times and neurons, and the time unit, such as "
            f"load(path, {_example(tree)}, unit='s'), or counts={_counts_example(tree)!r}, axes='time,neuron', dt_ms=10.{_ON_COMMAND_LINE}"
        )
    return Layout(path, lambda name: array_tree.resolve(tree, name, file=path), array_tree.describe(tree))


def _example(tree: array_tree.Tree) -> str:
    """Return arguments for two entries of equal length, or for two columns of the first entry."""
    shapes = {name: leaf.shape for name, leaf in array_tree.leaves(tree) if hasattr(leaf, "shape")}
    flat = [name for name, shape in shapes.items() if sum(n > 1 for n in shape) == 1]
    for i, times in enumerate(flat):
        for neurons in flat[i + 1 :]:
            if shapes[times] == shapes[neurons]:
                return f"times={times!r}, neurons={neurons!r}"
    if len(flat) == 1 and len(shapes) == 1:
        return f"times={flat[0]!r}"
    name = _counts_example(tree)
    return f"times='{name}[:,1]', neurons='{name}[:,0]'"


def _counts_example(tree: array_tree.Tree) -> str:
    """Return the name of an entry with two axes, "spikes" where there is none."""
    shapes = {name: leaf.shape for name, leaf in array_tree.leaves(tree) if hasattr(leaf, "shape")}
    return next((name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1), "spikes")


def _from_text(path: Path, settings: TableOptions, notes: list[str]) -> Layout:
    if settings.layout != "train-per-line":
        large = text_tables.large_columns(path, encoding=settings.encoding, separator=settings.separator, times=settings.times)
        if large is not None:
            return _from_columns(path, large, settings, notes)
    lines = text_tables.read_lines(path, encoding=settings.encoding, separator=settings.separator)
    if not lines.filled:
        raise NoSpikeTrainsError(f"no spike trains found in {path}: it holds no line that is not blank or a comment.")
    columns = text_tables.as_columns(lines)
    if settings.layout == "train-per-line" or (isinstance(columns, str) and settings.layout is None):
        return _train_per_line(lines, settings, notes, reason=columns if isinstance(columns, str) else "")
    if isinstance(columns, str):
        raise ReadError(f"{path} is no table of columns: {columns}.")
    if len(lines.filled) == 1 and not any(text_tables.is_number(field) for field in lines.filled[0]):
        held = ", ".join(lines.filled[0])[:80]
        raise NoSpikeTrainsError(f"no spike trains found in {path}: it holds one line of text ({held}) and no number.")
    numbers = [number for number, fields in zip(lines.line_number, lines.fields, strict=True) if fields]
    n_rows = len(next(iter(columns.values())))
    return _from_columns(path, columns, settings, notes, numbers[len(numbers) - n_rows :])


def _from_columns(
    path: Path, columns: dict[str, np.ndarray], settings: TableOptions, notes: list[str], line_numbers: Sequence[int] | None = None
) -> Layout:
    listed = ", ".join(
        f"{name!r} ({'numbers' if c.dtype.kind == 'f' else 'text'}, such as {c[0]})" for name, c in list(columns.items())[:12]
    )
    described = f"{len(next(iter(columns.values())))} rows of the columns {listed}."
    if settings.times is None and len(columns) == 1:
        name, values = next(iter(columns.items()))
        if values.dtype.kind != "f":
            raise NoSpikeTrainsError(f"no spike trains found in {path}: {described}")
        notes.append(f"table: {path.name} holds one column; read as the spike times of one neuron.")
        return Layout(path, lambda _: values, described, trains=[values], unit=text_tables.unit_in_name(name))
    if settings.times is None:
        raise ReadError(
            f"{path} holds {described} Say which are times and neurons, and the time unit, such as "
            f"load(path, times={list(columns)[-1]!r}, neurons={next(iter(columns))!r}, unit='s'); "
            f"if each line is the spike train of one neuron: layout='train-per-line'.{_ON_COMMAND_LINE}"
        )

    def find(name: str) -> np.ndarray:
        if name not in columns:
            raise ReadError(f"{path} has no column {name!r}{did_you_mean(name, columns)} Columns: {', '.join(columns)}.")
        return columns[name]

    return Layout(path, find, described, unit=text_tables.unit_in_name(settings.times), line_numbers=line_numbers)


def _train_per_line(lines: text_tables.TextLines, settings: TableOptions, notes: list[str], *, reason: str) -> Layout:
    try:
        trains, unit, n_blank = text_tables.as_trains(lines, empty_lines=settings.empty_lines)
    except ReadError as error:
        raise ReadError(f"{error} It is no table either: {reason}." if reason else str(error)) from error
    if not any(train.size for train in trains):
        raise NoSpikeTrainsError(f"no spike trains found in {lines.path}: no line holds a number.")
    if settings.layout is None:
        notes.append(f"table: the lines differ in length; read as one spike train per line, {len(trains)} neurons.")
    if n_blank:
        notes.append(f"table: {n_blank} blank lines taken as separators; with empty_lines='train' each is a neuron without spikes.")
    described = f"{len(trains)} lines of numbers, which read as one spike train each."
    return Layout(lines.path, None, described, trains=trains, unit=unit)


def _neuron_per_file(files: list[Path], settings: TableOptions, notes: list[str]) -> Layout:
    """Return one train per file; ids are the parts in which the file names differ, in the order of the numbers in them."""
    if not files:
        raise ReadError("no files given for layout='neuron-per-file'.")
    files = sorted(files, key=lambda p: text_tables.natural_key(p.name))
    trains, stated = [], set()
    for file in files:
        lines = text_tables.read_lines(file, encoding=settings.encoding, separator=settings.separator)
        if not lines.filled:
            notes.append(f"table: {file.name} is empty; kept as a neuron without spikes.")
            trains.append(np.zeros(0))
            continue
        columns = text_tables.as_columns(lines)
        if isinstance(columns, str) or len(columns) > 1:
            reason = columns if isinstance(columns, str) else f"it has {len(columns)} columns"
            raise ReadError(f"{file}: expected one spike time per line, but {reason}.")
        (name, values) = next(iter(columns.items()))
        if values.dtype.kind != "f":
            raise NoSpikeTrainsError(f"no spike trains found in {file}: {str(values[0])!r} is no number.")
        trains.append(values)
        stated.add(text_tables.unit_in_name(name))
    if not any(train.size for train in trains):
        raise NoSpikeTrainsError(f"no spike trains found in {len(files)} files of {files[0].parent}.")
    ids = _differing_parts([file.stem for file in files])
    described = f"{len(files)} files of {sum(map(len, trains))} numbers in all."
    unit = stated.pop() if len(stated) == 1 else None
    return Layout(files[0].parent, None, described, trains=trains, train_ids=ids, train_labels=[file.stem for file in files], unit=unit)


def _differing_parts(stems: list[str]) -> list[str]:
    """Return what tells the names apart: "cell0", "cell10" -> "0", "10"; the whole names where that is not unique."""
    parts = [re.split(r"(\d+)", stem) for stem in stems]
    if len({len(p) for p in parts}) == 1:
        varying = [i for i in range(len(parts[0])) if len({p[i] for p in parts}) > 1]
        ids = ["_".join(p[i] for i in varying) for p in parts]
        if len(set(ids)) == len(ids) and all(ids):
            return ids
    return stems


def _files_of(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in (".txt", ".csv", ".tsv", ".dat", "") and p.stat().st_size
    )
