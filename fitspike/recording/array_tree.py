"""Array files (npz, npy, MATLAB, HDF5) as one tree of named arrays, and paths into it such as "data[6]/spikes" or "spks[:,1]".

A tree is a dict (group, struct), a list (cell, struct array) or a leaf (array, text). HDF5 arrays are read when asked for.
"""

from __future__ import annotations

import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import ReadError, did_you_mean
from fitspike.recording.reading import require, signature_of

Tree = Any
_STEP = re.compile(r"([^/\[\]]+)((?:\[[^\]]*\])*)")
_INDEX = re.compile(r"-?\d+|(-?\d+)?:(-?\d+)?")
UNREADABLE = (
    *(ValueError, TypeError, LookupError, EOFError, OSError, RuntimeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, struct.error, zlib.error, zipfile.BadZipFile),
)
"""What numpy, scipy and h5py raise on a damaged file; the syntax and token errors come from the text header of a numpy array."""
ARRAY_EXTENSIONS = (".npz", ".npy", ".mat", ".h5", ".hdf5")


MAX_FILLED_GB = 1.0
"""Arrays that hold little and would need more than this with every zero or missing sample written out are refused."""


@dataclass(frozen=True)
class Hdf5Array:
    """A data set of an HDF5 file that has not been read. MATLAB stores arrays with their axes reversed: they are turned back."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    is_reversed: bool

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        h5py = require("h5py", extra="nwb", purpose="reading HDF5 files")
        try:
            with h5py.File(self.path, "r") as file:
                values = file[self.name][()]
        except UNREADABLE as error:
            raise ReadError(f"{self.name!r} of {self.path} cannot be read: {error}. Is the file damaged? Copy it again.") from error
        values = np.asarray(values).T if self.is_reversed else np.asarray(values)
        return values if dtype is None else values.astype(dtype)


@dataclass(frozen=True, eq=False)
class SparseArray:
    """A sparse matrix of a MATLAB file, filled with its zeros when asked for."""

    path: Path
    name: str
    matrix: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        return self.matrix.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        n_rows, n_columns = self.shape
        needed = n_rows * n_columns * self.dtype.itemsize / 1e9
        if needed > MAX_FILLED_GB:
            raise ReadError(
                f"{self.name!r} of {self.path} is a sparse matrix of {n_rows} x {n_columns}; it would need {needed:.1f} GB when filled; "
                f"the limit is {MAX_FILLED_GB:.1f} GB. Save where its entries are, [i, j] = find({self.name}), and read i and j as times "
                "and neurons."
            )
        values = self.matrix.toarray()
        return values if dtype is None else values.astype(dtype)


def open_tree(path: Path) -> Tree:
    """Return the content of an array file as a tree.

    Raises
    ------
    ReadError
        If the file is of no such format, damaged, or holds Python objects (pickles), which are never loaded.
    MissingDependencyError
        For HDF5 without h5py.
    """
    found = signature_of(path)
    label = found.label if found else ""
    suffix = path.suffix.lower()
    try:
        if label.startswith("a zip"):
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if label == "a numpy array":
            return {"array": np.load(path, mmap_mode="r", allow_pickle=False)}
        if label in ("an HDF5 file", "a MATLAB 7.3 file"):
            return _hdf5_tree(path)
        if suffix == ".mat":
            return _matlab_tree(path)
    except UNREADABLE as error:
        reason = str(error).rstrip(".")
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = (
                "it holds pickled Python objects, and loading those executes any code in them. Save plain arrays instead: the times of "
                "all spikes and the neuron of each, np.savez(path, times=..., neurons=...)"
            )
        raise ReadError(f"{path} cannot be opened: {reason}.") from error
    raise ReadError(f"{path} is none of {', '.join(ARRAY_EXTENSIONS)}, by content.")


def _matlab_tree(path: Path) -> Tree:
    from scipy import io

    try:
        content = io.loadmat(path, struct_as_record=False, chars_as_strings=True)
    except io.matlab.MatReadError as error:
        raise ValueError(error) from error
    return {name: _from_matlab(value, path, name) for name, value in content.items() if not name.startswith("__")}


def _from_matlab(value: Any, path: Path, name: str) -> Tree:
    """Return structs as dicts, cells and struct arrays as lists (1 x 1 structs as the struct), text as str, numbers as arrays."""
    from scipy import sparse

    if hasattr(value, "_fieldnames"):
        return {field: _from_matlab(getattr(value, field), path, f"{name}/{field}") for field in value._fieldnames}
    if sparse.issparse(value):
        return SparseArray(path, name, value)
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "U":
        return str(value[0]) if value.size == 1 else [str(text) for text in value.ravel()]
    if value.dtype != object:
        return value
    if value.size == 1 and hasattr(value.flat[0], "_fieldnames"):
        return _from_matlab(value.flat[0], path, name)
    return [_from_matlab(item, path, f"{name}[{i}]") for i, item in enumerate(value.ravel(order="F"))]


def _hdf5_tree(path: Path) -> Tree:
    h5py = require("h5py", extra="nwb", purpose="reading HDF5 and MATLAB 7.3 files")
    with path.open("rb") as file:
        is_matlab = file.read(10) == b"MATLAB 7.3"
    with h5py.File(path, "r") as file:
        return _from_hdf5(file, file, h5py, is_matlab)


def _from_hdf5(node: Any, file: Any, h5py: Any, is_matlab: bool) -> Tree:
    """Return groups as dicts, cells (object references) as lists, text as text, data sets unread; links to nowhere are left out."""
    if isinstance(node, h5py.Group):
        data = {name: child for name, child in node.items() if isinstance(child, h5py.Group | h5py.Dataset) and name != "#refs#"}
        return {name: _from_hdf5(child, file, h5py, is_matlab) for name, child in data.items()}
    if node.dtype == h5py.ref_dtype:
        references = node[()].ravel(order="C" if is_matlab else "K")
        return [_from_hdf5(file[reference], file, h5py, is_matlab) for reference in references]
    if h5py.check_string_dtype(node.dtype) is not None:
        values = node.asstr()[()]
        return values if isinstance(values, str) else values.astype(str)
    is_empty = is_matlab and bool(node.attrs.get("MATLAB_empty", 0))  # such a data set holds its shape instead of values
    if is_matlab and node.attrs.get("MATLAB_class") == b"char":
        return "" if is_empty else "".join(chr(code) for code in node[()].ravel())
    if is_empty:
        return np.zeros(0)
    shape = node.shape[::-1] if is_matlab else node.shape
    return Hdf5Array(Path(file.filename), node.name, shape, node.dtype, is_matlab)


def resolve(tree: Tree, path: str, *, file: Path) -> Tree:
    """Return what lies at a path: names separated by "/", each with optional numpy-like indices "[6]", "[:100]", "[:,1]".

    Raises
    ------
    ReadError
        If a name or an index does not exist; the message lists what is there.
    """
    node, so_far = tree, ""
    for match in _STEP.finditer(path.strip("/")):
        name, indices = match[1], re.findall(r"\[([^\]]*)\]", match[2])
        if not isinstance(node, Mapping) or name not in node:
            known = list(node) if isinstance(node, Mapping) else []
            where = f" in {so_far!r}" if so_far else ""
            raise ReadError(f"{file} has no {name!r}{where}{did_you_mean(name, known)} There is: {describe(node)}")
        node, so_far = node[name], f"{so_far}/{name}".lstrip("/")
        for index in indices:
            node = _at(node, index, so_far, file)
            so_far = f"{so_far}[{index}]"
    return np.asarray(node) if isinstance(node, Hdf5Array | SparseArray) else node


def _at(node: Tree, index: str, path: str, file: Path) -> Tree:
    parts = [part.strip() for part in index.split(",")]
    if not all(_INDEX.fullmatch(part) for part in parts):
        raise ReadError(f"[{index}] is no index. Write numbers and slices counted from 0, such as [6], [:100] or [:,1].")
    key = tuple(slice(*(int(end) if end else None for end in part.split(":"))) if ":" in part else int(part) for part in parts)
    try:
        if isinstance(node, list):
            if len(key) != 1:
                raise IndexError("a cell array has one axis here (column by column)")
            return node[key[0]]
        return np.asarray(node)[key]
    except IndexError as error:
        raise ReadError(f"{file}: {path}[{index}] does not exist ({error}). There is: {describe(node)}") from error


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Tree]]:
    """Yield (path, array, text or list) of every entry; a list is one entry."""
    if isinstance(tree, Mapping):
        for name, child in tree.items():
            yield from leaves(child, f"{prefix}/{name}".lstrip("/"))
    else:
        yield prefix, tree


def describe(tree: Tree, *, limit: int = 12) -> str:
    """Return "name (shape, type)" of each entry, the first `limit` of them."""
    if not isinstance(tree, Mapping):
        return _shape_text(tree) + "."
    entries = [f"{path} {_shape_text(leaf)}" for path, leaf in leaves(tree)]
    rest = f", and {len(entries) - limit} more" if len(entries) > limit else ""
    return ", ".join(entries[:limit]) + rest + "."


def _shape_text(leaf: Tree) -> str:
    if isinstance(leaf, str):
        return f"(text {leaf[:20]!r})"
    if isinstance(leaf, list):
        first = f" of {describe(leaf[0], limit=4).rstrip('.')}" if leaf else ""
        return f"(list of {len(leaf)}, the first{first})" if leaf else "(empty list)"
    array = leaf if isinstance(leaf, Hdf5Array | SparseArray) else np.asarray(leaf)
    return f"{array.shape} {array.dtype}".replace(",)", ")")
