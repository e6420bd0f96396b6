"""Where a run came from: versions, plugins, machine, seed, command, data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

import fitspike
from fitspike.plugin.registry import get_registry

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

PACKAGES = ("numpy", "scipy", "torch", "numba", "neo", "pynwb", "elephant", "pluggy")


@dataclass(frozen=True)
class RunProvenance:
    """Everything needed to say how a result came about. data: path, reader, notes and SHA-256 of file and spikes."""

    fitspike: str
    python: str
    packages: Mapping[str, str]
    plugins: tuple[Mapping[str, str], ...]
    machine: Mapping[str, Any]
    command: str
    started: str
    seed: int
    threads: int
    data: Mapping[str, Any]
    backends: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunProvenance:
        """Return it from plain values."""
        return cls(**{**values, "plugins": tuple(values["plugins"])})


def collect_provenance(recording: Recording, *, seed: int, threads: int, command: str | None = None) -> RunProvenance:
    """Return the provenance of a run that starts now."""
    plugins = tuple(
        {"name": record.name, "distribution": record.distribution, "version": record.version, "status": str(record.status)}
        for record in get_registry().manager.records()
    )
    machine = {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
    }
    return RunProvenance(
        fitspike=fitspike.__version__,
        python=platform.python_version(),
        packages=_versions(),
        plugins=plugins,
        machine=machine,
        command=" ".join(sys.argv) if command is None else command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        threads=threads,
        data=describe_data(recording),
    )


def describe_data(recording: Recording) -> dict[str, Any]:
    """Return where a recording came from, with a SHA-256 of its spikes and trials."""
    source = recording.source
    return {
        "path": source.path,
        "sha256": source.sha256,
        "reader": source.reader,
        "reader_version": source.reader_version,
        "notes": list(source.notes),
        "spikes_sha256": spikes_hash(recording),
        "n_neurons": recording.n_neurons,
        "n_spikes": recording.n_spikes,
        "n_trials": recording.n_trials,
        "duration_s": float(recording.duration_s),
    }


def spikes_hash(recording: Recording) -> str:
    """Return a SHA-256 of spikes, counts, neuron ids and trials; the same for equal data however they were stored."""
    digest = hashlib.sha256()
    for array in (recording.spike_times_ns, recording.spike_neuron, recording.trials.start_ns, recording.trials.stop_ns):
        digest.update(np.ascontiguousarray(array, dtype="<i8"))
    if recording.spike_count is not None:
        digest.update(np.ascontiguousarray(recording.spike_count, dtype="<i8"))
    for names in (recording.neurons.ids, recording.trials.conditions):
        digest.update("\0".join(map(str, names)).encode() + b"\1")
    for name in sorted(recording.signals):
        signal = recording.signals[name]
        digest.update(f"{name} {signal.sampling_rate_hz!r} {signal.start_ns} {signal.values.shape} {signal.values.dtype.str}".encode())
        for at in range(0, len(signal.values), 1 << 20):
            digest.update(np.ascontiguousarray(signal.values[at : at + (1 << 20)]))
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
