"""Phy and Kilosort folders, from their numpy arrays: column vectors, missing params.py and stale cluster tables included.

Neo's PhyIO fails on spike arrays of shape (n, 1) and on folders without params.py, hence this reader.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.reading import source_of
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable
from fitspike.recording.times import times_to_ns


class PhyReader:
    """Reads a folder with spike_times.npy and spike_clusters.npy (or spike_templates.npy)."""

    name = "phy"
    extensions: tuple[str, ...] = ()
    version = "1"

    def can_read(self, path: Path) -> bool | str:
        """Return True for a folder that holds spike_times.npy, or for that file itself."""
        folder = path.parent if path.name == "spike_times.npy" else path
        if not folder.is_dir():
            return "no folder"
        return (folder / "spike_times.npy").exists() or "the folder holds no spike_times.npy"

    def read(
        self, path: Path, *, sampling_rate_hz: float | None = None, start_s: float | None = None, stop_s: float | None = None
    ) -> Recording:
        """Return one neuron per cluster that has spikes; every column of cluster_*.tsv becomes a neuron column.

        Parameters
        ----------
        sampling_rate_hz : float, optional
            Default: `sample_rate` of params.py.
        start_s, stop_s : float, optional
            Default: 0, and the end of the raw data file if it lies there, else the last spike.
        """
        folder = path.parent if path.name == "spike_times.npy" else path
        notes: list[str] = []
        params = _params(folder / "params.py")
        rate = sampling_rate_hz or _number(params.get("sample_rate"))
        if rate is None:
            raise ReadError(
                f"{folder} has no params.py with a sample_rate, and spike_times.npy counts samples. Give sampling_rate_hz, such as 30000."
            )
        times = _vector(folder / "spike_times.npy", notes)
        clusters_path = folder / "spike_clusters.npy"
        if not clusters_path.exists():
            clusters_path = folder / "spike_templates.npy"
            notes.append("phy: no spike_clusters.npy; the templates of spike_templates.npy are taken as neurons.")
        if not clusters_path.exists():
            raise ReadError(f"{folder} has neither spike_clusters.npy nor spike_templates.npy; no spike can be given to a neuron.")
        clusters = _vector(clusters_path, notes)
        if times.size != clusters.size:
            raise ReadError(
                f"{folder}: spike_times.npy has {times.size} entries and {clusters_path.name} {clusters.size}; expected equally many."
            )
        if not times.size:
            raise NoSpikeTrainsError(f"no spike trains found in {folder}: spike_times.npy is empty.")
        ids = np.unique(clusters)
        columns = _cluster_columns(folder, ids, notes)
        if "n_spikes" in columns and (stated := np.nansum(columns["n_spikes"])) != times.size:
            notes.append(f"phy: the cluster tables count {stated:.0f} spikes, the arrays hold {times.size}; the arrays are used.")
        end_s = stop_s if stop_s is not None else _raw_duration_s(folder, params, rate)
        times_ns = times_to_ns(times, sampling_rate_hz=rate)
        files = sorted([folder / "spike_times.npy", clusters_path, *folder.glob("cluster_*.tsv"), *folder.glob("params.py")])
        return Recording.from_arrays(
            times_ns,
            clusters,
            unit="ns",
            neurons=NeuronTable.make(ids, labels=np.char.add("cluster ", ids.astype(str)), columns=columns),
            start_s=start_s,
            stop_s=end_s,
            source=source_of(folder, self.name, self.version, notes, files=files),
        )


def _vector(path: Path, notes: list[str]) -> np.ndarray:
    """Return a one-dimensional array; a column or row vector is flattened with a note."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ReadError(f"{path} is no readable numpy array: {error}") from error
    if array.ndim > 1:
        if array.size != max(array.shape):
            raise ReadError(f"{path} has shape {array.shape}; expected one entry per spike.")
        notes.append(f"phy: {path.name} has shape {array.shape}; read as {array.size} entries.")
    return array.ravel()


def _params(path: Path) -> dict[str, str]:
    """Return the assignments of a params.py as text. The file is never executed."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return {match[1]: match[2].strip("'\"") for match in re.finditer(r"^\s*(\w+)\s*=\s*(\S.*?)\s*(?:#.*)?$", text, re.MULTILINE)}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _raw_duration_s(folder: Path, params: dict[str, str], rate: float) -> float | None:
    """Return the length of the raw data file that params.py names, if it lies there."""
    names = re.findall(r"[^\[\]'\", ]+", params.get("dat_path", ""))
    n_channels = _number(params.get("n_channels_dat"))
    if len(names) != 1 or not n_channels or not (folder / names[0]).is_file():
        return None
    try:
        width = np.dtype(params.get("dtype", "int16")).itemsize
    except TypeError:
        return None
    n_bytes = (folder / names[0]).stat().st_size - (_number(params.get("offset")) or 0)
    return n_bytes / (n_channels * width) / rate


def _cluster_columns(folder: Path, ids: np.ndarray, notes: list[str]) -> dict[str, np.ndarray]:
    """Return the columns of every cluster_*.tsv and cluster_*.csv, one entry per id; "" or NaN where a table lacks the cluster."""
    columns: dict[str, np.ndarray] = {}
    wanted = {str(i): row for row, i in enumerate(ids)}
    tables = sorted([*folder.glob("cluster_*.tsv"), *folder.glob("cluster_*.csv")], key=lambda p: (p.stem != "cluster_info", p.name))
    for path in tables:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
        if len(rows) < 2 or rows[0][0] not in ("cluster_id", "id"):
            notes.append(f"phy: {path.name} has no column cluster_id and was not used.")
            continue
        for position, name in enumerate(rows[0][1:], start=1):
            if name in columns:
                continue
            found = {row[0]: row[position] for row in rows[1:] if len(row) > position and row[0] in wanted}
            columns[name] = _typed([found.get(i, "") for i in wanted])
    return columns


def _typed(values: list[str]) -> np.ndarray:
    """Return texts as float64 where all that are not empty are numbers, else as they are."""
    try:
        return np.array([float(v) if v else np.nan for v in values])
    except ValueError:
        return np.array(values)
