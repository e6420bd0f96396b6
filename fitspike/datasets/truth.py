"""The truth behind a synthetic recording, stored beside it: truth.npz in its folder."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from fitspike.datasets.base import GroundTruth
from fitspike.errors import ReadError

TRUTH_FILE = "truth.npz"
_OWN = ("weight", "delay_ms", "settings")


def save_truth(truth: GroundTruth, path: Path) -> Path:
    """Write a truth as .npz (into a folder: truth.npz) and return its path: `weight`, `delay_ms` [post, pre], other arrays by name."""
    path = path / TRUTH_FILE if path.is_dir() else path
    arrays = {name: np.asarray(value) for name, value in truth.values.items()}
    if clash := sorted(set(arrays) & set(_OWN)):
        raise ValueError(f"a truth's values may not be called {', '.join(clash)}")
    for name in ("weight", "delay_ms"):
        if getattr(truth, name) is not None:
            arrays[name] = np.asarray(getattr(truth, name))
    with path.open("wb") as file:
        np.savez(file, settings=np.array(json.dumps(truth.settings)), **arrays)
    return path


def load_truth(path: str | Path) -> GroundTruth:
    """Return the truth in a .npz file, in a recording's folder, or a bare weight matrix [post, pre] in a .npy file.

    Raises
    ------
    ReadError
        If there is none, or the file is damaged.
    """
    path = Path(path)
    file = path / TRUTH_FILE if path.is_dir() else path
    if not file.is_file():
        raise ReadError(
            f"no truth at {path}: expected a .npz with `weight` [post, pre], a .npy, or a recording's folder that holds {TRUTH_FILE}."
        )
    try:
        if file.suffix == ".npy":
            return GroundTruth(weight=np.load(file, allow_pickle=False))
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReadError(f"{file} cannot be read as a truth: {error}") from error
    settings = json.loads(str(arrays.pop("settings"))) if "settings" in arrays else {}
    return GroundTruth(arrays.pop("weight", None), arrays.pop("delay_ms", None), arrays, settings)
