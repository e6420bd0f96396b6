"""Spike files of simulators: SONATA HDF5 (both layouts) and NEST text (.gdf, and .dat of NEST 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.reading import is_text, require, signature_of, source_of
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable

_SONATA_UNITS = {"ms": "ms", "milliseconds": "ms", "millisecond": "ms", "s": "s", "seconds": "s", "second": "s"}


class SonataReader:
    """Reads SONATA spike files: /spikes/POPULATION/{timestamps,node_ids}, or the older /spikes/{timestamps,gids}."""

    name = "sonata"
    extensions = (".h5", ".hdf5")
    version = "1"

    def can_read(self, path: Path) -> bool | str:
        """Return True for an HDF5 file that holds one of the two layouts."""
        if not path.is_file() or path.suffix.lower() not in self.extensions:
            return "no .h5 file"
        found = signature_of(path)
        if found is None or found.label != "an HDF5 file":
            return "the content is not HDF5"
        h5py = require("h5py", extra="nwb", purpose="reading HDF5 files")
        try:
            with h5py.File(path, "r") as file:
                return bool(_populations(file, h5py)) or "no group /spikes with timestamps and node_ids"
        except OSError as error:
            return f"the HDF5 file does not open: {error}"

    def read(
        self,
        path: Path,
        *,
        unit: str | None = None,
        n_neurons: int | None = None,
        start_s: float | None = None,
        stop_s: float | None = None,
    ) -> Recording:
        """Return one neuron per population and node id. Spike files name only nodes that fired: give `n_neurons` to list 0 .. n - 1.

        Times are in the unit that the attribute `units` of timestamps states, else in `unit`, else in ms as the SONATA guide says.
        """
        h5py = require("h5py", extra="nwb", purpose="reading HDF5 files")
        notes: list[str] = []
        times, owner, ids, populations = [], [], [], []
        with h5py.File(path, "r") as file:
            groups = _populations(file, h5py)
            stated = {_stated_unit(group["timestamps"], unit, notes) for group, _ in groups.values()}
            if len(stated) != 1:
                raise ReadError(f"{path} states several time units: {', '.join(sorted(stated))}. Give unit= and one population per file.")
            for population, (group, id_name) in groups.items():
                nodes = group[id_name][:].astype(np.int64)
                known = np.unique(nodes) if n_neurons is None else np.arange(n_neurons)
                if n_neurons is None:
                    notes.append("sonata: nodes that never fired are not in the file; give n_neurons to list them.")
                prefix = f"{population}/" if len(groups) > 1 else ""
                times.append(group["timestamps"][:])
                owner.append(np.char.add(prefix, nodes.astype(str)))
                ids.append(np.char.add(prefix, known.astype(str)))
                populations += [population] * len(known)
        if not sum(map(len, times)):
            raise NoSpikeTrainsError(f"no spike trains found in {path}: its timestamps are empty.")
        return Recording.from_arrays(
            np.concatenate(times),
            np.concatenate(owner),
            unit=stated.pop(),
            neurons=NeuronTable.make(np.concatenate(ids), populations=populations),
            start_s=start_s,
            stop_s=stop_s,
            source=source_of(path, self.name, self.version, notes),
        )


def _populations(file: object, h5py: object) -> dict[str, tuple[object, str]]:
    """Return population -> (group, name of its id data set); "" for the layout without populations."""
    spikes = file.get("spikes")
    if not isinstance(spikes, h5py.Group):
        return {}
    for id_name in ("gids", "node_ids"):
        if id_name in spikes and "timestamps" in spikes:
            return {"": (spikes, id_name)}
    return {
        name: (group, "node_ids")
        for name, group in spikes.items()
        if isinstance(group, h5py.Group) and {"node_ids", "timestamps"} <= set(group)
    }


def _stated_unit(timestamps: object, unit: str | None, notes: list[str]) -> str:
    attribute = timestamps.attrs.get("units")
    attribute = attribute.decode() if isinstance(attribute, bytes) else attribute
    if attribute in _SONATA_UNITS:
        if unit is not None and unit != _SONATA_UNITS[attribute]:
            raise ReadError(f"the file states timestamps in {attribute!r}, unit={unit!r} was given. Leave unit out.")
        return _SONATA_UNITS[attribute]
    if unit is None:
        notes.append("sonata: the file states no time unit; taken as ms, as the SONATA guide says. Give unit= to say otherwise.")
    return unit or "ms"


class NestReader:
    """Reads NEST's spike files: lines of (node id, time in ms); .dat files of NEST 3 carry a header, .gdf files none."""

    name = "nest"
    extensions = (".gdf", ".dat")
    version = "1"

    def can_read(self, path: Path) -> bool | str:
        """Return True for text files named .gdf, or .dat with NEST's header."""
        if not path.is_file() or path.suffix.lower() not in self.extensions:
            return "no .gdf or .dat file"
        if not is_text(path):
            return "the content is not text"
        if path.suffix.lower() == ".gdf":
            return True
        with path.open("rb") as file:
            return file.read(16).startswith(b"# NEST version") or "no NEST header"

    def read(
        self,
        path: Path,
        *,
        unit: str | None = None,
        sampling_rate_hz: float | None = None,
        ids: str | None = None,
        start_s: float | None = None,
        stop_s: float | None = None,
    ) -> Recording:
        """Return one neuron per node id. Times with a decimal point are ms; whole numbers may be steps, so their unit must be said.

        `ids` lists all nodes, also silent ones, such as "1..1000".
        """
        from fitspike.recording.text_tables import id_range

        notes: list[str] = []
        with path.open(encoding="utf-8") as file:
            lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
        if lines and lines[0][0] == "sender":
            header = lines.pop(0)
            if header[:2] != ["sender", "time_ms"] and unit is None and sampling_rate_hz is None:
                raise ReadError(f"{path}: columns {', '.join(header)}; expected sender and time_ms. Give unit or sampling_rate_hz (steps).")
            unit = unit or ("ms" if sampling_rate_hz is None else "samples")
        if short := [i for i, fields in enumerate(lines) if len(fields) < 2]:
            raise ReadError(f"{path}: entry {short[0] + 1} has {len(lines[short[0]])} field; expected a node id and a time.")
        if not lines:
            raise NoSpikeTrainsError(f"no spike trains found in {path}: it holds no spike.")
        try:
            nodes = np.array([int(fields[0]) for fields in lines])
            times = np.array([float(fields[1]) for fields in lines])
        except ValueError as error:
            raise ReadError(f"{path} is no NEST spike file: {error}; expected lines of node id and time.") from error
        if unit is None and sampling_rate_hz is None:
            if all(fields[1].isdigit() for fields in lines):
                raise ReadError(
                    f"{path}: the times are whole numbers, either ms or simulation steps. Give unit='ms', or "
                    "sampling_rate_hz=10000 for steps of 0.1 ms."
                )
            notes.append("nest: times taken as ms, as NEST writes them. Give unit= to say otherwise.")
        if ids is None:
            notes.append('nest: nodes that never fired are not in the file; give ids="1..1000" to list them.')
        return Recording.from_arrays(
            times,
            nodes,
            unit=unit or "ms",
            sampling_rate_hz=sampling_rate_hz,
            ids=None if ids is None else id_range(ids),
            start_s=start_s,
            stop_s=stop_s,
            source=source_of(path, self.name, self.version, notes),
        )
