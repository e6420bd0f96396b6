"""The numbers of a run folder, read plainly for drawing: no model and no plugin is needed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import RunFolderError

FORMAT_VERSION = 1
"""Of run folders."""


def check_format_version(path: Path, status: Mapping[str, Any]) -> None:
    """Raise RunFolderError if the run folder at `path`, with this status.json, is of a newer format."""
    version = status.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has format version {version!r}; this fitspike reads up to {FORMAT_VERSION}. Install the fitspike that wrote it "
            "(see provenance.json) or a newer one."
        )


@dataclass(frozen=True, eq=False)
class RunFiles:
    """What a run folder holds. JSON files as plain values, .npz files as arrays by name; a file that is missing is empty."""

    path: Path
    status: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    specs: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)
    simulation: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings_text: str = ""

    @classmethod
    def read(cls, path: Path) -> RunFiles:
        """Return the files of a run folder.

        Raises
        ------
        RunFolderError
            If the folder is missing or is no run folder, or a file in it is damaged.
        """
        path = Path(path)
        if not (path / "status.json").is_file():
            what = "is no run folder (it has no status.json)" if path.exists() else "does not exist"
            raise RunFolderError(f"{path} {what}. Give the folder that `fitspike fit` printed.")
        check_format_version(path, _json(path / "status.json"))
        json_files = ("status", "fit", "specs", "provenance", "score", "simulation", "selection", "extras", "checks")
        text = path / "run.toml"
        return cls(
            path,
            **{name: _json(path / f"{name}.json") for name in json_files},
            history=_lines(path / "history.jsonl"),
            statistics=_arrays(path / "statistics.npz"),
            settings_text=text.read_text(encoding="utf-8") if text.is_file() else "",
        )

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the statistics whose names begin with "prefix/", without that prefix."""
        start = f"{prefix}/"
        return {name.removeprefix(start): value for name, value in self.statistics.items() if name.startswith(start)}

    @property
    def neuron_ids(self) -> np.ndarray:
        """Return the names of the neurons, (n_neurons,) text."""
        if "recorded/neuron_ids" in self.statistics:
            return self.statistics["recorded/neuron_ids"]
        return np.asarray(self.specs.get("data", {}).get("neuron_ids", []), dtype=np.str_)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged: {error}. Restore it, or fit again into another folder.") from error
    return value if isinstance(value, dict) else {"value": value}


def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the rows of a JSON-lines file; a last line cut off by a crash is left out."""
    if not path.is_file():
        return ()
    rows, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise RunFolderError(f"{path} line {number + 1} is damaged: {error}.") from error
    return tuple(rows)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{path} is damaged: {error}. Restore it, or fit again into another folder.") from error
