"""The network of 300 integrate-and-fire neurons in SONATA files: populations and true weights."""

import csv
from pathlib import Path

import numpy as np

from fitspike import Recording, load
from fitspike.plugin import GroundTruth

N_NEURONS, N_EXCITATORY, STOP_S = 300, 240, 3.0


def output(paths: list[Path]) -> Recording:
    """Return the output spikes of all 300 neurons, excitatory and inhibitory as populations."""
    recording = load(_named(paths, "spikes.h5"), format="sonata", n_neurons=N_NEURONS, stop_s=STOP_S)
    return recording.attach(neuron_columns={"population": _populations(paths)})


def _populations(paths: list[Path]) -> np.ndarray:
    import h5py

    with _named(paths, "v1_node_types.csv").open(newline="") as file:
        kind = {int(row["node_type_id"]): row["ei"] for row in csv.DictReader(file, delimiter=" ")}
    with h5py.File(_named(paths, "v1_nodes.h5")) as file:
        types, ids = file["nodes/v1/node_type_id"][:], file["nodes/v1/node_id"][:]
    names = np.array(["excitatory" if kind[int(t)] == "e" else "inhibitory" for t in types])
    return names[np.argsort(ids)]


def truth(paths: list[Path]) -> GroundTruth:
    """Return the recurrent weights [post, pre]: synapses times the weight of their type, negative from inhibitory neurons; delay 2 ms."""
    import h5py

    with _named(paths, "v1_v1_edge_types.csv").open(newline="") as file:
        types = {int(row["edge_type_id"]): row for row in csv.DictReader(file, delimiter=" ")}
    with h5py.File(_named(paths, "v1_v1_edges.h5")) as file:
        edges = file["edges/v1_to_v1"]
        pre, post = edges["source_node_id"][:].astype(int), edges["target_node_id"][:].astype(int)
        kind, n_synapses = edges["edge_type_id"][:], edges["0/nsyns"][edges["edge_group_index"][:]]
    size = np.array([float(types[int(t)]["syn_weight"]) for t in kind]) * n_synapses
    delay_ms = np.array([float(types[int(t)]["delay"]) for t in kind])
    sign = np.where(_populations(paths) == "excitatory", 1.0, -1.0)
    weight, delay = np.zeros((N_NEURONS, N_NEURONS)), np.zeros((N_NEURONS, N_NEURONS))
    np.add.at(weight, (post, pre), size * sign[pre])
    delay[post, pre] = delay_ms
    return GroundTruth(weight=weight, delay_ms=delay)


def _named(paths: list[Path], name: str) -> Path:
    return next(path for path in paths if path.name == name)
