"""Where a run came from: versions, plugins, machine, seed, command, data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fitspike
from fitspike.plugin.registry import get_registry

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

PACKAGES = ("numpy", "scipy", "torch", "numba", "neo", "pynwb", "elephant", "pluggy")


@dataclass(frozen=True)
class RunProvenance:
    """Everything needed to say how a result came about. data: path, reader, notes, SHA-256 of the file, and fingerprint
    of the contents."""

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
    """Return where a recording came from, with a hash of its contents."""
    source = recording.source
    return {
        "path": source.path,
        "sha256": source.sha256,
        "reader": source.reader,
        "reader_version": source.reader_version,
        "notes": list(source.notes),
        "fingerprint": recording.fingerprint(),
        "n_neurons": recording.n_neurons,
        "n_spikes": recording.n_spikes,
        "n_trials": recording.n_trials,
        "duration_s": float(recording.duration_s),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
