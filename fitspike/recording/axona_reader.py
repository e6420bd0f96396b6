"""Axona (DacqUSB) tetrode files NAME.set, NAME.1 ... with cluster labels NAME_1.cut or NAME.clu.1.

Neo's AxonaIO fails on files whose header lacks `pretrigSamps` (older recorders) and does not read cut files, hence this reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.reading import source_of
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable
from fitspike.recording.times import times_to_ns

_TETRODE = re.compile(r"^\.\d{1,2}$")


@dataclass(frozen=True)
class _Tetrode:
    """Spikes of one file: samples (n_spikes,) at `rate_hz`, cluster (n_spikes,)."""

    number: int
    path: Path
    samples: np.ndarray
    rate_hz: float
    duration_s: float
    cluster: np.ndarray
    labels_path: Path | None


class AxonaReader:
    """Reads all tetrodes beside a .set file, or a single tetrode file."""

    name = "axona"
    extensions = (".set", ".cut", *(f".{i}" for i in range(1, 33)))
    version = "1"

    def can_read(self, path: Path) -> bool | str:
        """Return True for .set and tetrode files, which begin with `trial_date`; cut files belong to them."""
        if not path.is_file() or not (path.suffix in (".set", ".cut") or _TETRODE.match(path.suffix)):
            return "no .set or tetrode file"
        with path.open("rb") as file:
            head = file.read(16)
        if path.suffix == ".cut" and head.startswith(b"n_clusters"):
            return True
        return head.startswith(b"trial_date") or "the file does not begin with an Axona header (trial_date)"

    def read(self, path: Path) -> Recording:
        """Return one neuron per tetrode and cluster. Cluster 0 holds what nobody sorted: column `is_sorted` is False there."""
        if path.suffix == ".cut":
            raise ReadError(f"{path} holds cluster labels only, no spike trains. Give the .set file or the tetrode file beside it.")
        base = path.with_suffix("")
        beside = sorted(p for p in path.parent.iterdir() if p.stem == base.name)  # no glob: a name may hold brackets
        files = [path] if path.suffix != ".set" else [p for p in beside if _TETRODE.match(p.suffix)]
        if not files:
            raise NoSpikeTrainsError(f"no spike trains found: {path} has no tetrode files ({base.name}.1, ...) beside it.")
        notes: list[str] = []
        tetrodes = [_read_tetrode(file, notes) for file in sorted(files, key=lambda p: int(p.suffix[1:]))]
        if not any(t.samples.size for t in tetrodes):
            raise NoSpikeTrainsError(f"no spike trains found in {', '.join(p.name for p in files)}: they hold 0 spikes.")
        if (stray := path.with_suffix(".pos")) in beside:
            notes.append(f"axona: {stray.name} (position) was not read.")
        return _assemble(path, tetrodes, notes)


def _assemble(path: Path, tetrodes: list[_Tetrode], notes: list[str]) -> Recording:
    ids, number, unit, times, owner = [], [], [], [], []
    for tetrode in tetrodes:
        for cluster in np.unique(tetrode.cluster):
            ids.append(f"{tetrode.number}/{cluster}")
            number.append(tetrode.number)
            unit.append(int(cluster))
        times.append(times_to_ns(tetrode.samples, sampling_rate_hz=tetrode.rate_hz))
        owner.append(np.char.add(f"{tetrode.number}/", tetrode.cluster.astype(str)))
    unit_id = np.asarray(unit)
    used = [file for tetrode in tetrodes for file in (tetrode.path, tetrode.labels_path) if file is not None]
    neurons = NeuronTable.make(
        np.asarray(ids),
        labels=[f"tetrode {t} unit {u}" for t, u in zip(number, unit, strict=True)],
        columns={"tetrode": np.asarray(number), "unit_id": unit_id, "is_sorted": unit_id > 0},
    )
    stop_s = max(tetrode.duration_s for tetrode in tetrodes) or None
    return Recording.from_arrays(
        np.concatenate(times),
        np.concatenate(owner),
        unit="ns",
        neurons=neurons,
        stop_s=stop_s,
        source=source_of(path, AxonaReader.name, AxonaReader.version, notes, files=used),
    )


def _read_tetrode(path: Path, notes: list[str]) -> _Tetrode:
    """Return the spikes of a tetrode file: big-endian records of (timestamp, waveform) per channel after `data_start`."""
    content = path.read_bytes()
    begin = content.find(b"data_start")
    if begin < 0:
        raise ReadError(f"{path} has no `data_start`; it is no Axona tetrode file, or it was cut off.")
    header = dict(line.split(" ", 1) for line in content[:begin].decode("latin-1").splitlines() if " " in line)

    def whole(key: str) -> int:
        match = re.match(r"\s*(\d+)", header.get(key, ""))
        if match is None:
            raise ReadError(f"{path}: the header gives no {key}; expected a whole number.")
        return int(match[1])

    n_spikes, n_channels = whole("num_spikes"), whole("num_chans")
    if whole("bytes_per_timestamp") != 4:
        raise ReadError(f"{path}: timestamps have {whole('bytes_per_timestamp')} bytes; only 4 are known.")
    record = np.dtype([("time", ">u4"), ("wave", "V", whole("samples_per_spike") * whole("bytes_per_sample"))])
    data = content[begin + len(b"data_start") :]
    n_present = min(n_spikes, len(data) // (record.itemsize * n_channels))
    if n_present < n_spikes:
        notes.append(f"axona: {path.name} is truncated: its header counts {n_spikes} spikes, {n_present} are in the file.")
    samples = np.frombuffer(data, dtype=record, count=n_present * n_channels)["time"][::n_channels].astype(np.int64)
    number = int(path.suffix[1:])
    cluster, labels_path = _labels(path, number, n_spikes, notes)
    return _Tetrode(number, path, samples, float(whole("timebase")), float(whole("duration")), cluster[:n_present], labels_path)


def _labels(path: Path, number: int, n_spikes: int, notes: list[str]) -> tuple[np.ndarray, Path | None]:
    """Return the cluster of each spike from the cut or clu file beside a tetrode file, or all 0."""
    cut, clu = path.with_name(f"{path.stem}_{number}.cut"), path.with_name(f"{path.stem}.clu.{number}")
    if cut.exists():
        text = cut.read_text(encoding="latin-1")
        match = re.search(r"Exact_cut.*?spikes:\s*\d+\s*(.*)\Z", text, re.DOTALL)
        labels, used = (np.array(match[1].split(), dtype=np.int64) if match else np.zeros(0, np.int64)), cut
    elif clu.exists():
        labels, used = np.array(clu.read_text(encoding="latin-1").split()[1:], dtype=np.int64), clu
    else:
        notes.append(f"axona: {path.name} has no cut file; its spikes are one unsorted unit.")
        return np.zeros(n_spikes, np.int64), None
    if labels.size != n_spikes:
        raise ReadError(
            f"{used} labels {labels.size} spikes, {path.name} holds {n_spikes}; expected equally many. Without it spikes are unsorted."
        )
    return labels, used
