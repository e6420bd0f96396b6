"""Files of a run folder, written whole or not at all, and arrays stored without pickling."""

from __future__ import annotations

import io
import json
import os
import tomllib
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import RunFolderError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it, so that a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}. Check space and permissions, or choose another --out."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON; floats read back bit for bit, NaN and infinities are written as null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Return the value with arrays and tuples as lists, numpy scalars as Python's, and NaN or infinite floats as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def read_json(path: Path) -> Any:
    """Return the values of a JSON file.

    Raises
    ------
    RunFolderError
        If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}. Is this a complete run folder?") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged: {error}. Restore it, or fit again into another folder.") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file.

    Raises
    ------
    RunFolderError
        If it is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}. Is this a complete run folder?") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}. Restore it, or fit again into another folder.") from error


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name as .npz, pickling off.

    Raises
    ------
    RunFolderError
        For an array of Python objects, which only a pickle could hold.
    """
    checked = {name: np.asarray(value) for name, value in arrays.items()}
    objects = [name for name, value in checked.items() if value.dtype == object]
    if objects:
        raise RunFolderError(f"cannot store {', '.join(objects)} in {path.name}: arrays of Python objects. Give numbers or text.")
    buffer = io.BytesIO()
    np.savez(buffer, **checked)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name.

    Raises
    ------
    RunFolderError
        If it is missing, damaged, or would need a pickle.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}. Is this a complete run folder?") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise RunFolderError(f"{path} is damaged: {error}. Restore it, or fit again into another folder.") from error
